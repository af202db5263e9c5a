"""Pores: how many, how wide, how connected, how tortuous."""
