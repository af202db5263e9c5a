"""Classes from volumes: networks, losses, training, blended inference, evaluation."""
