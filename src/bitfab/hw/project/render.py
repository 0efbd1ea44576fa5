"""Scripts that take a design through Vivado or Quartus, out of context; paths in them are relative to themselves."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

from jinja2 import Environment, PackageLoader, StrictUndefined

from bitfab.hw.design import Design
from bitfab.parts import Placer, find_part

# Files of a project's folder, by the template of each.
_TEMPLATES: Mapping[Placer, Mapping[str, str]] = {
    Placer.NEXTPNR: {},
    Placer.VIVADO: {"vivado/build.tcl": "vivado.tcl.j2", "vivado/clock.xdc": "clock.sdc.j2"},
    Placer.QUARTUS: {
        "quartus/build.tcl": "quartus.tcl.j2",
        "quartus/{name}.qpf": "quartus.qpf.j2",
        "quartus/{name}.qsf": "quartus.qsf.j2",
        "quartus/clock.sdc": "clock.sdc.j2",
    },
}


def project_files(design: Design) -> dict[str, str]:
    """What the tool of the part's vendor needs beside `rtl/`, by path in the output folder; nothing for nextpnr.

    `vivado/build.tcl` and `quartus/build.tcl` synthesize, place and route the design without pins (Vivado: mode
    out_of_context; Quartus: virtual pins) and write reports of use and timing beside themselves. The clock is the
    target's. Sources and memory files are the design's; a memory is found by its name, since the tools search the
    folder of the source that reads it.
    """
    part = find_part(design.target.part)
    environment = Environment(
        loader=PackageLoader("bitfab.hw.project"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    context = {
        "design": design,
        "part": part,
        "period_ns": round(1000 / design.target.clock_mhz, 3),
        "memories": [path for path in design.files if path.startswith("rtl/") and path.endswith(".mem")],
        "version": version("bitfab"),
    }
    return {
        path.format(name=design.name): environment.get_template(template).render(context)
        for path, template in _TEMPLATES[part.family.facts.placer].items()
    }
