"""
The rules that the library tests every generating and multimodal model by (GenerationTesterMixin, VLMModelTest), which
its source distribution leaves out. `table.py` says by which test each rule is covered here.
"""
