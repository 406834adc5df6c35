"""Makes models with Keras and TensorFlow: `keras_models.py samples|models|speed FOLDER`.

`samples`: what modelscan's own tests make, dangerous and harmless, written anew from
`tests/test_modelscan.py` and `tests/test_utils.py` of its repository. `models`: harmless ones of
many kinds, as people train and save them. `speed`: one of each format with 10 MB of weights.
"""

import os
import pickle
import sys
from pathlib import Path

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}

import keras
import numpy as np
import tensorflow as tf
import tf_keras
from keras import layers

rng = np.random.default_rng(11)
EVIL = 'import http.client\nimport os\nc = http.client.HTTPSConnection("example.invalid")'


def samples(folder: Path) -> None:
    """Write modelscan's models."""
    for kind in ("malicious", "benign"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for library, name in ((keras, "3"), (tf_keras, "2")):
            model = of_library(library, is_evil=kind == "malicious")
            model.save(folder / kind / f"keras{name}.h5")
            model.save(folder / kind / f"keras{name}.keras")
            if library is tf_keras:
                model.save(folder / kind / "saved_model", save_format="tf")
    model = of_library(keras, is_evil=False)
    model.export(folder / "benign" / "exported", verbose=False)
    (folder / "benign" / "safe").write_bytes(pickle.dumps(model))
    tf.saved_model.save(Writer(), folder / "malicious" / "writes_files")


def of_library(library, *, is_evil: bool):  # noqa: ANN001, ANN201  # two libraries, one interface
    """A small trained model; an evil one ends with two layers of code."""
    inputs = library.Input(shape=(32,))
    outputs = library.layers.Dense(1)(inputs)
    for _ in range(2 if is_evil else 0):
        layer = library.layers.Lambda(lambda x: exec(EVIL) or x, output_shape=(1,))  # noqa: S102
        outputs = layer(outputs)
    model = library.Model(inputs, outputs)
    model.compile(optimizer="adam", loss="mean_squared_error")
    if not is_evil:
        model.fit(rng.random((64, 32)), rng.random((64, 1)), verbose=0)
    return model


class Writer(tf.Module):
    """A model that writes a file, lists a folder and reads what it finds."""

    @tf.function(input_signature=[tf.TensorSpec((None, 32), tf.float32)])
    def __call__(self, x):  # noqa: ANN001, ANN204  # a graph
        """What it does when it is asked."""
        tf.io.write_file("aws_secret.txt", "aws_access_key_id=<access_key_id>")
        for file in tf.data.Dataset.list_files("*.txt", shuffle=False):
            tf.print(tf.io.read_file(file))
        return x


def networks():  # noqa: ANN201  # Keras models by name
    """Models of many kinds of layers."""
    image, text, series = (28, 28, 1), (20,), (16, 8)
    yield "dense", keras.Sequential([keras.Input((32,)), layers.Dense(64, "relu"), layers.Dense(1)])
    yield (
        "deep",
        keras.Sequential(
            [
                keras.Input((16,)),
                *(layers.Dense(8, each) for each in ("relu", "gelu", "tanh", "selu", "swish")),
                layers.BatchNormalization(),
                layers.Dropout(0.2),
                layers.Dense(3, "softmax"),
            ]
        ),
    )
    yield (
        "convolution",
        keras.Sequential(
            [
                keras.Input(image),
                layers.Conv2D(8, 3, activation="relu"),
                layers.MaxPooling2D(),
                layers.SeparableConv2D(8, 3),
                layers.GlobalAveragePooling2D(),
                layers.Dense(10, "softmax"),
            ]
        ),
    )
    yield "residual", residual(image)
    yield (
        "recurrent",
        keras.Sequential(
            [
                keras.Input(series),
                layers.LSTM(8, return_sequences=True),
                layers.GRU(4),
                layers.Dense(1),
            ]
        ),
    )
    yield (
        "bidirectional",
        keras.Sequential(
            [keras.Input(series), layers.Bidirectional(layers.LSTM(4)), layers.Dense(2)]
        ),
    )
    yield (
        "words",
        keras.Sequential(
            [keras.Input(text), layers.Embedding(100, 8), layers.Conv1D(4, 3), layers.Flatten()]
        ),
    )
    yield "attention", attention(series)
    yield (
        "augmented",
        keras.Sequential(
            [
                keras.Input(image),
                layers.Rescaling(1 / 255),
                layers.RandomFlip(),
                layers.RandomRotation(0.1),
                layers.Flatten(),
                layers.Dense(10),
            ]
        ),
    )
    normal = layers.Normalization()
    normal.adapt(rng.random((50, 4)))
    yield "normalised", keras.Sequential([keras.Input((4,)), normal, layers.Dense(1)])
    yield (
        "regular",
        keras.Sequential(
            [
                keras.Input((8,)),
                layers.Dense(4, kernel_regularizer="l2", kernel_constraint="max_norm"),
                layers.LeakyReLU(),
                layers.PReLU(),
                layers.LayerNormalization(),
                layers.Dense(1, kernel_initializer="he_normal"),
            ]
        ),
    )
    yield (
        "mobile",
        keras.applications.MobileNetV3Small(input_shape=(64, 64, 3), weights=None, classes=4),
    )


def residual(shape):  # noqa: ANN001, ANN201  # a Keras model
    """A model whose layers branch and meet."""
    inputs = keras.Input(shape)
    x = layers.Conv2D(4, 3, padding="same")(inputs)
    y = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    x = layers.Flatten()(layers.Add()([x, y]))
    return keras.Model(inputs, [layers.Dense(2)(x), layers.Dense(3, "softmax")(x)])


def attention(shape):  # noqa: ANN001, ANN201  # a Keras model
    """A small transformer."""
    inputs = keras.Input(shape)
    x = layers.MultiHeadAttention(2, 4)(inputs, inputs)
    x = layers.LayerNormalization()(layers.Add()([x, inputs]))
    return keras.Model(inputs, layers.Dense(1)(layers.GlobalAveragePooling1D()(x)))


def models(folder: Path) -> None:
    """Write each network in each format."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in networks():
        model.compile(optimizer="adam", loss="mse", metrics=["mae"])
        model.save(folder / f"{name}.keras")
        model.save(folder / f"{name}.h5")
        model.save_weights(folder / f"{name}.weights.h5")
        if name != "augmented":  # its random state is not exported
            model.export(folder / f"{name}-exported", verbose=False)
        if name in ("dense", "convolution"):
            converter = tf.lite.TFLiteConverter.from_keras_model(model)
            (folder / f"{name}.tflite").write_bytes(converter.convert())


def speed(folder: Path) -> None:
    """Write 10 MB of weights in each format."""
    folder.mkdir(parents=True, exist_ok=True)
    model = keras.Sequential([keras.Input((1250,)), layers.Dense(2000), layers.Dense(1)])
    model.save(folder / "model.keras")
    model.save(folder / "model.h5")
    model = keras.Sequential([keras.Input((1250,)), layers.Dense(1000), layers.Dense(1)])
    model.export(folder / "saved_model", verbose=False)


if __name__ == "__main__":
    {"samples": samples, "models": models, "speed": speed}[sys.argv[1]](Path(sys.argv[2]))
