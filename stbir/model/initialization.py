"""A model whose encoders start with the weights of a checkpoint."""

from stbir.config import MODALITIES, ModelConfig
from stbir.errors import InputError
from stbir.model import checkpoint
from stbir.model.builder import build_retriever, resolve
from stbir.model.retriever import Retriever
from stbir.model.weights import load_strict

_CORRECTION = "hubness."  # measured anew, from the features of the trained encoders


def build_from_checkpoint(config: ModelConfig, uri: str, seed: int = 0) -> Retriever:
    """The model of `config`; its encoders take the tensors of the checkpoint at `uri` by their names.

    A fusion gate and a hubness correction start anew. Raises InputError that names tensors which are missing,
    not in the model, or of another shape.
    """
    retriever = build_retriever(resolve(config).without_weights(), seed)
    for modality in MODALITIES:
        encoder, source = retriever.encoder(modality), f"{uri} ({modality} encoder)"
        tensors = checkpoint.read_tensors(uri, modality)
        state = {name: tensor for name, tensor in tensors.items() if not name.startswith(_CORRECTION)}
        own = {name: t for name, t in encoder.state_dict().items() if name.startswith(_CORRECTION)}
        try:
            load_strict(encoder, state | own, source)
        except InputError as error:
            remedy = "choose recipe finetune, which takes the checkpoint's model, or change --set model.…"
            raise InputError(f"--init-from: {error}; {remedy}") from error
    return retriever.eval()
