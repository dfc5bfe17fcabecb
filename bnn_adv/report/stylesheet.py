"""The style sheet of the HTML page: light, dark, narrow and printed."""

from __future__ import annotations

CSS = """
:root { --ink: #1b1b1b; --quiet: #5c5c5c; --paper: #ffffff; --line: #d9d9d9; --soft: #f5f5f3;
  --warn: #8a4b00; --warn-paper: #fff4e0; --accent: #0b5c96; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e6e3; --quiet: #a8a5a0; --paper: #16181a; --line: #3a3d40; --soft: #1f2225;
    --warn: #ffc46b; --warn-paper: #33260f; --accent: #7cc0f2; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 1.5rem 1.25rem 3rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0.5rem 0 0.25rem; text-wrap: balance; }
h2 { font-size: 1.2rem; margin: 2.25rem 0 0.6rem; }
h3 { font-size: 1rem; margin: 1.25rem 0 0.4rem; }
p, dl, ul { max-width: 46rem; }
.quiet, figcaption, dl { color: var(--quiet); font-size: 0.875rem; }
.summary { font-size: 1.05rem; border-left: 3px solid var(--accent); padding-left: 0.9rem; }
.warnings { border: 1px solid var(--warn); border-left-width: 5px; background: var(--warn-paper);
  border-radius: 4px; padding: 0.6rem 1rem; margin: 1rem 0; }
.warnings h2 { margin: 0; font-size: 1rem; color: var(--warn); }
.warnings ul { margin: 0.3rem 0 0; padding-left: 1.2rem; max-width: none; }
.scroll { overflow-x: auto; margin: 0.75rem 0; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums;
  border-top: 2px solid var(--ink); border-bottom: 2px solid var(--ink); }
.results { width: 100%; }
th, td { padding: 0.3rem 0.6rem; text-align: right; vertical-align: top; white-space: nowrap; }
thead th { border-bottom: 1px solid var(--ink); font-weight: 600; vertical-align: bottom;
  white-space: normal; }
.name, .accuracy, .prose { text-align: left; }
.prose { white-space: normal; min-width: 11rem; }
.value { display: inline-block; min-width: 2.6em; text-align: right; }
tbody tr.first > * { border-top: 1px solid var(--line); }
thead .accuracy { padding-left: 1.1rem; }
small { font-size: 0.75rem; font-weight: 400; color: var(--quiet); }
.note { display: block; white-space: normal; max-width: 11rem; }
@media (max-width: 56rem) { .accuracy small { display: block; } th, td { padding: 0.3rem 0.5rem; } }
.pairs { border-width: 1px; border-color: var(--line); }
.pairs th { text-align: left; font-weight: 400; color: var(--quiet); }
.pairs td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.pairs tr + tr > * { border-top: 1px solid var(--line); }
.columns { display: grid; gap: 0 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); }
.columns table, .columns .pairs { width: 100%; }
dt { font-weight: 600; color: var(--ink); margin-top: 0.4rem; }
dd { margin: 0; }
figure { margin: 1.25rem 0; }
figure img { display: block; max-width: 100%; height: auto; background: #ffffff;
  border-radius: 4px; }
@media (prefers-color-scheme: dark) { figure img { padding: 0.5rem; } }
@media screen and (max-width: 40rem) { figure img { max-width: none; } }
figcaption { margin-top: 0.5rem; max-width: 46rem; }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: 4px;
  padding: 0.7rem 0.9rem; white-space: pre-wrap; overflow-wrap: anywhere; font-size: 0.85rem; }
@media print {
  :root { --ink: #000; --quiet: #333; --paper: #fff; --line: #bbb; --soft: #fff; --warn: #000;
    --warn-paper: #fff; --accent: #000; }
  body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  table { font-size: 8pt; }
  th, td { padding: 0.2rem 0.4rem; }
  .scroll { overflow: visible; }
  figure, tr, .warnings { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
}
"""
