"""Shrink `.keras` files to ship them."""

import io
import zipfile

import h5py

WEIGHTS = "model.weights.h5"  # the weights inside a `.keras` archive


def shrink(path):
    """Rewrite a `.keras` file: kernels in float16, what is there twice stored once, all packed."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    small = io.BytesIO()
    with h5py.File(io.BytesIO(parts[WEIGHTS])) as source, h5py.File(small, "w") as target:
        _copy_in_half(source, target)
    parts[WEIGHTS] = small.getvalue()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def _copy_in_half(source, target):
    written = {}  # content -> the array in `target` that has it

    def copy(name, item):
        if isinstance(item, h5py.Group):
            copied = target.require_group(name)
        else:
            values = item[()]
            if values.ndim > 1:  # biases and statistics stay as they are: they are few
                values = values.astype("float16")
            content = (values.shape, values.dtype, values.tobytes())
            if content in written:
                target[name] = written[content]
                return
            copied = written[content] = target.create_dataset(name, data=values)
        copied.attrs.update(item.attrs)

    source.visititems(copy)
    target.attrs.update(source.attrs)
