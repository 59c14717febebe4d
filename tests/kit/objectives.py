"""Every objective, small."""

from xclr.recipe import (
    CLIPConfig,
    CLOOBConfig,
    CWCLConfig,
    DCLConfig,
    DCLWConfig,
    SimCLRConfig,
    SoftCLIPConfig,
    SupConConfig,
    TargetGraph,
    TextConfig,
    XCLRConfig,
)

CONFIGS = {
    "simclr": SimCLRConfig(),
    "supcon": SupConConfig(),
    "xclr": XCLRConfig(),
    "xclr by class": XCLRConfig(graph=TargetGraph(source="random_class")),
    "clip": CLIPConfig(),
    "clip frozen": CLIPConfig(text="frozen"),
    "clip bpe": CLIPConfig(text=TextConfig(width=16, layers=1, heads=2), label_smoothing=0.1),
    "clip words": CLIPConfig(text=TextConfig(width=16, layers=1, heads=2, context=12, tokens="words")),
    "dcl": DCLConfig(),
    "dclw": DCLWConfig(),
    "cwcl": CWCLConfig(text="frozen"),
    "softclip": SoftCLIPConfig(text="frozen"),
    "cloob": CLOOBConfig(),
}
