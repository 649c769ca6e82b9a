"""The style sheet of the page: light and dark paper, phone and print, nothing loaded from anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .looks import COLOURS, Look

if TYPE_CHECKING:
    from collections.abc import Iterable

LIGHT: Final = {
    "paper": "#ffffff", "ink": "#1b1b1b", "faint": "#5f5f5f", "rule": "#e3e3e3", "wash": "#f6f6f4",
    "ahead": "#0b57d0", "ahead-wash": "#e6effd", "behind": "#b33a00", "behind-wash": "#fdeae0",
}  # fmt: skip
DARK: Final = {
    "paper": "#151517", "ink": "#e9e9e9", "faint": "#a6a6a6", "rule": "#333337", "wash": "#1e1e21",
    "ahead": "#8fbcff", "ahead-wash": "#16294a", "behind": "#ff9f70", "behind-wash": "#43200f",
}  # fmt: skip

RULES: Final = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1180px;margin:0 auto;padding:24px 20px 64px}
h1{font-size:1.75rem;line-height:1.2;margin:.4em 0 .3em;letter-spacing:-.01em}
h2{font-size:1.3rem;line-height:1.25;margin:2.4em 0 .3em;padding-top:.7em;border-top:1px solid var(--rule)}
h3{font-size:1rem;margin:1.6em 0 .2em}
p,ul{max-width:46rem;margin:.5em 0}
ul{padding-left:1.2em}
li{margin:.25em 0}
a{color:var(--ahead)}
code{font:.92em ui-monospace,monospace}
.lead{font-size:1.08rem;color:var(--faint)}
.warn{border-left:4px solid var(--behind);background:var(--behind-wash);padding:.3em .9em;max-width:46rem;margin:.7em 0}
nav{margin:1em 0;line-height:1.9}
nav a{white-space:nowrap;margin-right:1.1em}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,420px),1fr));gap:22px 36px;margin:1.2em 0}
figure{margin:0;min-width:0;max-width:560px;break-inside:avoid}
figcaption{line-height:1.35}
figcaption b{display:block;font-weight:600}
figcaption small{color:var(--faint);font-size:.85rem}
figure svg{display:block;width:100%;height:auto;overflow:visible;font:11.5px system-ui,sans-serif}
.shapes{position:absolute}
svg text{fill:var(--ink)}
svg .t{fill:var(--faint)}
svg .v{font-variant-numeric:tabular-nums}
.grid{stroke:var(--rule);stroke-width:1}
.s path{fill:none;stroke:var(--c);stroke-width:1.7;stroke-linejoin:round}
.s .w{stroke-width:1.2;opacity:.75}
.s .r{stroke:var(--ink);stroke-width:1.4}
.s .leader{stroke-width:.8;opacity:.5}
.s use{fill:var(--c);stroke:var(--c);stroke-width:1.4}
.s use.o{fill:var(--paper)}
.s .bar{fill:var(--c);opacity:.8}
.s.ours>path:not(.w,.r,.leader){stroke-width:3}
.s.ours text:not(.t){font-weight:650}
.s{transition:opacity .12s}
.swatch{vertical-align:-1px;margin-right:.45em;overflow:visible}
.scroll{overflow-x:auto;margin:.8em 0 1.2em}
table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums}
th,td{padding:.28em .55em;text-align:right;white-space:nowrap;border-bottom:1px solid var(--rule)}
th{font-weight:600;vertical-align:bottom}
thead th{border-bottom:1.5px solid var(--faint)}
th small,td small{display:block;font-weight:400;color:var(--faint)}
th:first-child,.l{text-align:left}
tbody th{font-weight:400;text-align:left;position:sticky;left:0;background:var(--paper)}
tbody th.ours{font-weight:650}
tbody.case>tr:first-child>th{position:static;background:var(--wash);font-weight:600;padding-top:.5em}
td.ahead{color:var(--ahead);background:var(--ahead-wash);font-weight:600}
td.behind{color:var(--behind);background:var(--behind-wash);font-weight:600}
td.level{background:var(--wash)}
td.error{text-align:left;white-space:normal;color:var(--behind);min-width:18rem}
.key th,.key td{border:0;padding:.15em .8em .15em 0;text-align:left}
.key th{vertical-align:top}
.key td{white-space:normal;color:var(--faint)}
@media (max-width:560px){
main{padding:10px 13px 40px}
h1{font-size:1.4rem}
h2{margin-top:1.8em}
figure svg{font-size:13px}
th,td{padding:.28em .45em}
th{white-space:normal}
tbody th{min-width:6.5rem}
tbody.case>tr:first-child>th{white-space:nowrap}
thead .swatch{display:block;margin:0 0 0 auto}
}
@media print{
body{font-size:10pt}
main{max-width:none;padding:0}
nav{display:none}
.plots{grid-template-columns:1fr 1fr;gap:14px 20px}
.scroll{overflow:visible}
table{font-size:7pt}
th,td{padding:.15em .35em}
tbody th{position:static}
tr,.warn{break-inside:avoid}
h2,h3{break-after:avoid}
td,.bar,tbody th{print-color-adjust:exact;-webkit-print-color-adjust:exact}
}
"""


def style_sheet(looks: Iterable[Look]) -> str:
    """The rules, with the contenders' colours; a contender under the pointer fades the others of its plot."""
    light = "".join(f"--{name}:{colour};" for name, colour in LIGHT.items())
    light += "".join(f"--{name}:{colours[0]};" for name, colours in COLOURS.items())
    dark = "".join(f"--{name}:{colour};" for name, colour in DARK.items())
    dark += "".join(f"--{name}:{colours[1]};" for name, colours in COLOURS.items())
    lines = "".join(f".{name}{{--c:var(--{name})}}" for name in COLOURS)
    faded = "".join(f"svg:has(.{look.key}:hover) .s:not(.{look.key}){{opacity:.15}}" for look in looks)
    return (
        f":root{{color-scheme:light dark;{light}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
        f"{lines}{RULES}@media (hover:hover){{{faded}}}"
    )
