"""Run by the environment that has the frameworks: makes models, inputs and their own answers."""

import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import skops.io
import tensorflow as tf
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

ROWS = 5
SOURCE = np.random.default_rng(3)


def numbers(*shape):
    return SOURCE.standard_normal((ROWS, *shape)).astype("f4")


def kept(folder, name, inputs, outputs):
    found = {f"in_{each}": value for each, value in inputs.items()}
    found |= {f"out_{at}": np.asarray(value) for at, value in enumerate(outputs)}
    np.savez(folder / f"{name}.npz", **found)


def keras_model(folder, name, model, inputs):
    model.save(folder / name)
    given = list(inputs.values())
    said = model(given if len(given) > 1 else given[0], training=False)
    kept(folder, name, inputs, said if isinstance(said, list | tuple) else [said])


class Functions(tf.Module):
    def __init__(self):
        super().__init__()
        self.factor = tf.Variable(2.0)

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
    def __call__(self, x):
        return {"label": tf.argmax(x, -1), "doubled": x * self.factor}


def main(folder: Path) -> None:
    keras.utils.set_random_seed(5)
    layers = keras.layers
    image = keras.Sequential(
        [
            layers.Input((8, 8, 1), name="pixels"),
            layers.Conv2D(4, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Flatten(),
            layers.Dense(10, activation="softmax", name="shares"),
        ]
    )
    pixels = {"pixels": numbers(8, 8, 1)}
    keras_model(folder, "image.keras", image, pixels)
    image.export(folder / "saved", format="tf_saved_model", verbose=False)
    kept(folder, "saved", pixels, [image(pixels["pixels"], training=False)])
    left, right = layers.Input((4,), name="left"), layers.Input((4,), name="right")
    both = [layers.Add(name="sum")([left, right]), layers.Multiply(name="product")([left, right])]
    two = keras.Model([left, right], both)
    keras_model(folder, "two.keras", two, {"left": numbers(4), "right": numbers(4)})
    words = keras.Sequential(
        [
            layers.Input((12,), dtype="int32", name="tokens"),
            layers.Embedding(50, 8),
            layers.LSTM(6),
            layers.Dense(1, name="score"),
        ]
    )
    tokens = SOURCE.integers(0, 50, (ROWS, 12)).astype("i4")
    keras_model(folder, "words.keras", words, {"tokens": tokens})
    keras.Sequential([layers.Input((2,)), layers.Lambda(lambda x: x + 1)]).save(
        folder / "lambda.keras"
    )
    texts = [layers.Input((), dtype="string", name="said"), layers.Identity(name="again")]
    keras.Sequential(texts).save(folder / "texts.keras")
    functions, x = Functions(), numbers(3)
    tf.saved_model.save(functions, str(folder / "functions"))
    said = functions(tf.constant(x))
    kept(folder, "functions", {"x": x}, [said["doubled"], said["label"]])
    rows, labels = load_iris(return_X_y=True)
    forest = RandomForestClassifier(5, random_state=1).fit(rows, labels)
    skops.io.dump(forest, folder / "forest.skops")
    few = rows[::30].astype("f4")
    kept(folder, "forest.skops", {"x": few}, [forest.predict(few), forest.predict_proba(few)])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
