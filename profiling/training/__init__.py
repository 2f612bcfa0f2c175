"""The work that a profile-guided build of the extension is trained with (`make wheel`).

`maturin build --pgo` builds the extension so that it counts what runs, has it do this work, and
builds it again for what was counted. So the work is what services do, in about the parts in which
they do it: `service` over HTTP, driven by `client`, and what programs do with a loop (`programs`).
It shares nothing with what is measured: neither routes nor programs.
"""
