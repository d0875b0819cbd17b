"""The language model: what a text becomes, and that it is learnt."""

import lzma

import pytest
import torch

from client.oracles import LocalOptions, TorchOracle
from thinwire.errors import ConfigError
from thinwire.random import Key
from thinwire.tasks import initial_model, load_task, trainable_layout
from thinwire.tasks.text import Text


def test_the_text_that_comes_with_a_dependency_is_learnt_by_characters():
    task = Text(hidden=32, length=20)
    module = initial_model(task)
    layout = trainable_layout(module)
    oracle = TorchOracle.of(task, task.train_examples(0, 20, 0), layout, options=LocalOptions(steps=30, rate=2.0))
    x = layout.flatten(dict(module.named_parameters()))
    before = oracle.evaluate(x, None, task.test_examples())
    after = oracle.evaluate(x - oracle.local(x, Key(1)).update, None, task.test_examples())
    assert before["perplexity"] > 50
    assert after["loss"] < before["loss"] - 0.5
    assert 0 < after["accuracy"] < 1


def test_clients_share_the_stretches_out_in_order_and_the_end_is_the_servers(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text(" ".join(f"w{i % 7}" for i in range(101)))
    task = load_task({"name": "text", "path": str(path), "level": "word", "length": 10, "vocabulary": 5})
    shares = [task.train_examples(i, 3, 0) for i in range(3)]
    assert [len(share) for share in shares] == [3, 3, 3]
    assert len(task.test_examples()) == 1
    inputs, targets = (torch.cat([share.tensors[part] for share in shares]).flatten() for part in (0, 1))
    assert inputs[1:].tolist() == targets[:-1].tolist()
    assert int(inputs.max()) == 4  # four words, and one for the rest
    assert task.model()(inputs[None, :10]).shape == (1, 10, 5)


def test_compressed_texts_are_read_and_others_refused(tmp_path):
    path = tmp_path / "text.xz"
    path.write_bytes(lzma.compress(b"abc" * 100))
    assert Text(path=str(path)).model().scores.out_features == 3
    for name, content in (("bad.xz", b"abc"), ("bad.txt", b"\xff\xfe\xfa")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match="cannot read the text"):
            Text(path=str(tmp_path / name)).model()
    with pytest.raises(ConfigError, match="two stretches"):
        Text(path=str(path), length=200).test_examples()
    with pytest.raises(ConfigError, match="stretches to share out"):
        Text(path=str(path)).train_examples(0, 1000, 0)
    with pytest.raises(ConfigError, match="level"):
        load_task({"name": "text", "level": "sentence"})
