"""The kinds of ledger entries that are about models: the catalogue's longest chapter."""

from __future__ import annotations

from modelkeep.ledger.kind import Act, kind

MODEL_KINDS = (
    kind(
        "admission.approved",
        "hold_id model digest rules until_ns why",
        "What was held may be let in until an instant: these bytes, with these findings.",
        Act.UPDATE,
        entity="admission",
    ),
    kind(
        "admission.held",
        "hold_id model digest subject rules evidence size_bytes",
        "An admission waits for somebody's decision.",
        Act.CREATE,
        entity="admission",
    ),
    kind(
        "admission.used",
        "hold_id model version",
        "What had been held was let in because somebody had approved it.",
        Act.READ,
        entity="admission",
    ),
    kind(
        "admission.withdrawn",
        "hold_id model",
        "An approval was taken back, or what waited for one was given up.",
        Act.DELETE,
        entity="admission",
    ),
    kind(
        "alias.set",
        "model alias version",
        "An alias points at a version.",
        Act.UPDATE,
        entity="alias",
    ),
    kind(
        "model.admitted",
        "model version manifest size_bytes domain",
        "A model version was let in.",
        Act.CREATE,
        entity="model",
    ),
    kind(
        "model.deprecated",
        "model version until_ns replaced_by note",
        "A version should not be used any more; from `until_ns` on no new start serves it.",
        Act.UPDATE,
        entity="model",
    ),
    kind(
        "model.exported",
        "model version manifest recipients size_bytes",
        "A model was handed over as a file that others can open.",
        Act.READ,
        entity="model",
    ),
    kind(
        "model.held",
        "model version note",
        "A version must not go, whatever retention says.",
        Act.UPDATE,
        entity="model",
    ),
    kind(
        "model.imported",
        "model version manifest signer",
        "A model was let in that another keep had exported and signed.",
        Act.CREATE,
        entity="model",
    ),
    kind(
        "model.loaded",
        "model version manifest",
        "A program got a model's tensors in its memory.",
        Act.READ,
        entity="model",
    ),
    kind(
        "model.oms_signed",
        "subject root files key model version manifest",
        "A model of the keep, or files on a disk, were signed in the form of OMS.",
        Act.CREATE,
        entity="signature",
    ),
    kind(
        "model.oms_verified",
        "subject root files key model version manifest",
        "A model of the keep, or files on a disk, were found to be what an OMS signature says.",
        Act.READ,
        entity="signature",
    ),
    kind(
        "model.policy_set",
        "model version before",
        "A version got the bytes of the version `before`, under another policy.",
        Act.UPDATE,
        entity="model",
    ),
    kind(
        "model.promoted",
        "model alias version previous manifest note",
        "An alias moved to a version that was checked, and approved where that is asked for; "
        "`previous` is 0 where it named none.",
        Act.UPDATE,
        entity="alias",
    ),
    kind(
        "model.provenance",
        "model version signer signature root expected boms packages advisories",
        "What was proven of a version that was let in: who signed it (`signer`, empty for nobody; "
        "`signature` is the digest of the bundle, `root` of what it is over), digests that were "
        "expected, bills of materials that came with it, packages that were assessed.",
        Act.READ,
        entity="model",
    ),
    kind("model.refused", "model decision digest rules", "A model was not let in.", Act.DETECT),
    kind(
        "model.removed",
        "model versions aliases",
        "Versions left the current snapshot; earlier ones hold them until they are pruned.",
        Act.DELETE,
        entity="model",
    ),
    kind(
        "model.restored",
        "model version manifest path",
        "A model, or a part of one, was written out in plaintext.",
        Act.READ,
        entity="model",
    ),
    kind(
        "model.rolled_back",
        "model alias version previous manifest note",
        "An alias went back to a version that it had named before.",
        Act.UPDATE,
        entity="alias",
    ),
    kind(
        "model.undeprecated",
        "model version",
        "A version may be used as any other again.",
        Act.UPDATE,
        entity="model",
    ),
    kind(
        "model.unheld",
        "model version",
        "A hold was lifted: the version may go.",
        Act.UPDATE,
        entity="model",
    ),
)
