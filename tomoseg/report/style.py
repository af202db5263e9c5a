"""The style sheet of the page: light and dark, wide and narrow, screen and paper."""

CSS = """
:root { color-scheme: light dark; --paper: #ffffff; --card: #ffffff; --ink: #1c2127; --soft: #59636e;
  --line: #dfe3e8; --tint: #f5f7f9; --accent: #0067a3; --good: #00694d; --care: #9a4a00; --bad: #59636e;
  --care-tint: #fff4e5; --care-line: #e6a04d; }
@media screen and (prefers-color-scheme: dark) {
  :root { --paper: #14171b; --card: #1a1e23; --ink: #e3e7eb; --soft: #9aa4af; --line: #2e353d; --tint: #20252b;
    --accent: #6fbdf0; --good: #4cc9a0; --care: #f0b060; --bad: #9aa4af; --care-tint: #2b2318; --care-line: #8a6126; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main, header, footer { max-width: 1120px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 36px; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3em; overflow-wrap: anywhere; letter-spacing: -.01em; }
h2 { font-size: 1.35rem; line-height: 1.25; margin: 0; }
p { margin: .5em 0; max-width: 75ch; }
a { color: var(--accent); }
.kicker { color: var(--soft); font-size: .85rem; letter-spacing: .06em; text-transform: uppercase; margin: 0 0 .5em; }
.lead { font-size: 1.1rem; max-width: 72ch; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: 8px; margin: 20px 0 0; padding: 0; }
nav a { display: inline-flex; gap: .5em; align-items: center; padding: .3em .8em; border: 1px solid var(--line);
  border-radius: 99px; text-decoration: none; color: var(--ink); font-size: .9rem; background: var(--card); }
nav a:hover { border-color: var(--accent); }
.state { font-size: .78rem; font-weight: 600; white-space: nowrap; }
.fresh { color: var(--good); } .stale, .partial { color: var(--care); } .missing { color: var(--bad); }
section { border-top: 1px solid var(--line); margin-top: 36px; padding-top: 28px; }
.title { display: flex; flex-wrap: wrap; gap: 4px 14px; align-items: baseline; margin-bottom: 12px; }
.hero { display: grid; grid-template-columns: minmax(0, 1.05fr) minmax(0, 1fr); gap: 32px; align-items: start;
  margin-top: 16px; }
.hero.plain { grid-template-columns: minmax(0, 1fr); }
.numbers { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 12px; margin: 20px 0 0; padding: 0; }
.numbers div { background: var(--tint); border-radius: 10px; padding: 12px 16px; display: flex;
  flex-direction: column-reverse; justify-content: flex-end; }
.numbers dt { color: var(--soft); font-size: .85rem; }
.numbers dd { margin: 0; font-size: 1.45rem; font-weight: 600; line-height: 1.25; }
.numbers small { font-size: .62em; font-weight: 500; color: var(--soft); }
.warnings { border: 1px solid var(--care-line); border-left-width: 5px; background: var(--care-tint);
  border-radius: 8px; padding: 12px 18px; margin-top: 24px; }
.warnings h2 { font-size: 1rem; } .warnings ul { margin: .4em 0 0; padding-left: 1.2em; }
.warnings li { margin: .3em 0; overflow-wrap: anywhere; max-width: 95ch; }
.warnings strong { font-weight: 600; }
.clear { color: var(--good); font-weight: 600; margin-top: 20px; }
section > dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); gap: 10px 28px;
  margin: 0 0 20px; }
section > dl > div { min-width: 0; }
section dt { color: var(--soft); font-size: .85rem; } section dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 0; min-width: 0; break-inside: avoid; }
figure img { display: block; width: 100%; height: auto; border-radius: 6px; }
.plot img { aspect-ratio: 4.4 / 2.7; }
.montage img, .triple img { background: #000; max-height: 460px; object-fit: contain; }
figcaption { font-size: .85rem; color: var(--soft); margin-top: 6px; overflow-wrap: anywhere; }
.note { font-size: .85rem; color: var(--soft); }
.montage { display: grid; grid-template-columns: repeat(5, minmax(0, 1fr)); gap: 10px; }
.montage figcaption { text-align: center; margin-top: 2px; }
.triple { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 16px; align-items: start; }
.pair { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 24px; margin: 8px 0 24px;
  align-items: start; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 6px 20px; padding: 0; margin: 0 0 14px;
  font-size: .95rem; }
.legend li { display: inline-flex; align-items: center; gap: 8px; overflow-wrap: anywhere; }
.swatch { width: 16px; height: 16px; border-radius: 4px; border: 1px solid var(--soft); flex: none; }
.swatch.empty { background: linear-gradient(to top right, transparent 46%, var(--soft) 46% 54%, transparent 54%); }
.scroll { overflow-x: auto; margin: 8px 0 20px; }
table { border-collapse: collapse; font-size: .9rem; min-width: 50%; }
.caption { font-weight: 600; font-size: .95rem; margin: 16px 0 0; }
th { text-align: left; font-weight: 600; color: var(--soft); vertical-align: bottom; }
th, td { padding: 5px 16px 5px 0; border-bottom: 1px solid var(--line); }
td { vertical-align: top; max-width: 46ch; overflow-wrap: break-word; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
code { font-size: .8rem; }
details { margin: 10px 0; } summary { cursor: pointer; color: var(--accent); }
pre { background: var(--tint); padding: 12px 16px; border-radius: 8px; overflow: auto; max-height: 420px;
  font-size: .8rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.notes { font-size: .9rem; color: var(--soft); padding-left: 1.2em; }
.notes li { overflow-wrap: anywhere; max-width: 95ch; }
h3 { font-size: 1.1rem; margin: 1.6em 0 .5em; }
button { font: inherit; font-size: .9rem; color: inherit; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: .25em .8em; cursor: pointer; min-height: 34px; }
button:hover { border-color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.live { display: none; } .choice.on > .live { display: block; } .choice.on > .still { display: none; }
.choice { min-width: 0; margin: 8px 0 20px; }
.bar { display: flex; flex-wrap: wrap; gap: 8px 18px; align-items: center; margin: 10px 0; font-size: .92rem; }
.bar label { display: inline-flex; gap: 7px; align-items: center; cursor: pointer; overflow-wrap: anywhere;
  min-height: 28px; }
input[type=range], input[type=checkbox] { accent-color: var(--accent); margin: 0; }
.bar > input[type=range] { flex: 1 1 220px; min-width: 120px; }
figure > input[type=range] { width: 100%; height: 28px; }
.bar label input[type=range] { width: 110px; }
output { font-variant-numeric: tabular-nums; white-space: nowrap; }
.bar > output { flex: 1 1 320px; white-space: normal; }
.live .pair { margin: 0; gap: 16px; }
.live figure canvas { display: block; width: 100%; max-height: 460px; object-fit: contain; background: #000;
  border-radius: 6px; }
.live .triple canvas { aspect-ratio: 1; cursor: crosshair; }
.stage { position: relative; aspect-ratio: 1; border: 1px solid var(--line); border-radius: 10px; overflow: hidden;
  color: var(--ink); background: var(--tint); }
.stage canvas { position: absolute; inset: 0; width: 100%; height: 100%; border-radius: 10px; }
.gl { touch-action: none; cursor: grab; } .gl:active { cursor: grabbing; } .over { pointer-events: none; z-index: 1; }
.picked { position: absolute; top: 8px; left: 12px; right: 12px; margin: 0; font-size: .92rem; z-index: 2;
  pointer-events: none; }
.picked button { margin-left: 6px; padding: 0 .6em; pointer-events: auto; }
.chosen td { background: var(--care-tint); }
.tall { max-height: 460px; overflow: auto; border: 1px solid var(--line); border-radius: 8px; padding: 0 0 0 12px; }
.tall thead th { position: sticky; top: 0; background: var(--paper); z-index: 1; }
th button { border: 0; background: none; padding: 2px 0; font: inherit; font-weight: 600; color: inherit;
  text-align: inherit; min-height: 0; }
th button::after { content: "↕"; opacity: .35; padding-left: .35em; }
th[aria-sort=ascending] button::after { content: "↑"; opacity: 1; }
th[aria-sort=descending] button::after { content: "↓"; opacity: 1; }
.command { display: flex; gap: 12px; align-items: flex-start; background: var(--tint); border-radius: 8px;
  padding: 12px 16px; margin: 8px 0 16px; }
.command code { flex: 1; min-width: 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }
.paper { display: none; }
footer { color: var(--soft); font-size: .85rem; padding-top: 28px; padding-bottom: 48px; }
.surface figcaption .legend { font-size: inherit; margin: 0 0 4px; }
@media screen and (max-width: 760px) {
  main, header, footer { padding-left: 16px; padding-right: 16px; } header { padding-top: 22px; }
  h1 { font-size: 1.5rem; } .lead { font-size: 1rem; }
  .hero, .pair, .triple { grid-template-columns: minmax(0, 1fr); }
  section > dl { grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); }
  .montage { grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 6px; } .numbers dd { font-size: 1.2rem; } }
@media print {
  .choice.on > .live, button { display: none; } .choice.on > .still { display: block; }
  .more { display: none; } .paper { display: block; } .tall { max-height: none; border: 0; padding: 0; }
  th button { display: inline; } th button::after { content: none; }
  body { font-size: 10.5pt; } nav { display: none; } section { margin-top: 18px; padding-top: 14px; }
  .title, .legend, figure, tr { break-inside: avoid; } .title { break-after: avoid; } .scroll { overflow: visible; }
  .swatch, .numbers div, .warnings { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  h3 { break-after: avoid; } table { font-size: 8pt; } th, td { padding-right: 8px; }
  a { color: inherit; } }
"""
