import gzip
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from thinwire.device import choose_device, seeded, set_threads
from thinwire.errors import ConfigError
from thinwire.random import Key
from thinwire.tasks.adversarial_digits import AdversarialDigits
from thinwire.tasks.digits import Digits
from thinwire.tasks.examples import DatasetExamples, TensorExamples, to_dtype
from thinwire.tasks.idx import IdxImages
from thinwire.tasks.registry import initial_model, load_task, registry, trainable_layout, trainable_patterns
from thinwire.tasks.text import Text

ROOT = Path(__file__).parents[2]
MNIST = ROOT.parent / "shared" / "data"
CPU = torch.device("cpu")


# -- examples ----------------------------------------------------------------------------------------------------


def test_a_batch_holds_the_rows_of_every_tensor_in_the_order_asked():
    examples = TensorExamples(torch.arange(10.0).unsqueeze(1), torch.arange(10))
    x, y = examples.batch(torch.tensor([7, 2, 2]), CPU)
    assert x.tolist() == [[7.0], [2.0], [2.0]]
    assert y.tolist() == [7, 2, 2]


def test_a_subset_draws_from_its_own_indices():
    examples = TensorExamples(torch.arange(10)).subset(np.array([9, 4, 1])).subset([2, 0])
    assert len(examples) == 2
    assert examples.batch(torch.tensor([0, 1]), CPU)[0].tolist() == [1, 9]


def test_tensors_of_different_lengths_are_refused():
    with pytest.raises(ConfigError, match=r"one length, not \[2, 3\]"):
        TensorExamples(torch.zeros(2), torch.zeros(3))


class Squares(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        return {"x": torch.tensor(float(index)), "y": index * index}


def test_any_torch_data_set_can_be_drawn_by_index():
    examples = DatasetExamples(Squares()).subset(torch.tensor([5, 3, 1]))
    batch = examples.batch(torch.tensor([2, 0]), CPU)
    assert len(examples) == 3
    assert batch["x"].tolist() == [1.0, 5.0]
    assert batch["y"].tolist() == [1, 25]


def test_a_cast_batch_keeps_its_integers():
    batch = to_dtype({"x": torch.zeros(2), "more": [torch.zeros(1, dtype=torch.uint8), "text"]}, torch.float64)
    assert batch["x"].dtype == torch.float64
    assert batch["more"][0].dtype == torch.uint8
    assert batch["more"][1] == "text"


# -- digits ------------------------------------------------------------------------------------------------------


def test_the_digits_are_split_once_and_for_all():
    task = Digits(partition="iid")
    (images, labels), (test, _) = task.train_examples(0, 1, 0).tensors, task.test_examples().tensors
    assert (len(images), len(test)) == (1438, 359)
    assert images.dtype == torch.float32
    assert (images.min(), images.max()) == (0, 1)
    assert labels.bincount().min() > 100
    rows = {tuple(row) for row in images.tolist()}
    assert sum(tuple(row) in rows for row in test.tolist()) == 0
    assert torch.equal(test, Digits(partition="iid").test_examples().tensors[0])


def test_the_digits_model_has_the_widths_asked_for():
    sizes = [tuple(p.shape) for p in Digits().model().parameters()]
    assert sizes == [(256, 64), (256,), (256, 256), (256,), (10, 256), (10,)]
    assert [tuple(p.shape) for p in Digits(hidden=()).model().parameters()] == [(10, 64), (10,)]


def test_the_clients_of_one_federation_share_the_training_digits():
    task = Digits(partition="dirichlet", alpha=0.3, minimum=5)
    sizes = [len(task.train_examples(i, 10, 1)) for i in range(10)]
    assert sum(sizes) == 1438
    assert min(sizes) >= 5
    with pytest.raises(ConfigError, match="partition 10 is not one of 0 to 9"):
        task.train_examples(10, 10, 1)


def test_a_client_can_hold_out_examples_of_its_own():
    task = Digits(partition="iid", client_test_fraction=0.25)
    assert len(task.train_examples(2, 10, 0)) == 108
    assert len(task.client_test_examples(2, 10, 0)) == 36
    assert Digits(partition="iid").client_test_examples(2, 10, 0) is None


def test_evaluation_counts_right_answers_and_leaves_the_mode_of_the_model():
    task = Digits(hidden=(), partition="iid")
    model = task.model()
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.copy_(torch.arange(10.0) == 3)
    metrics = task.evaluate(model, task.test_examples(), CPU)
    labels = task.test_examples().tensors[1]
    assert metrics["accuracy"] == pytest.approx((labels == 3).double().mean().item())
    plain = torch.nn.functional.cross_entropy(model(task.test_examples().tensors[0]), labels)
    assert metrics["loss"] == pytest.approx(plain.item(), rel=1e-6)
    assert model.training


# -- IDX ---------------------------------------------------------------------------------------------------------


def idx_bytes(array):
    array = np.asarray(array, dtype=np.uint8)
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_set(folder, name, count=40, size=(8, 8), zipped=True):
    labels = np.arange(count) % 4
    images = (np.arange(count * size[0] * size[1]) % 251).reshape(count, *size)
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        data = idx_bytes(array)
        path = folder / f"{name}-{kind}-ubyte{'.gz' if zipped else ''}"
        path.write_bytes(gzip.compress(data) if zipped else data)
    return images, labels


def small(folder, **options):
    return IdxImages(str(folder), **{"size": (8, 8), "classes": 4, "partition": "iid", **options})


@pytest.mark.parametrize("zipped", [True, False])
def test_a_folder_with_train_and_test_files_is_read_as_it_is(tmp_path, zipped):
    images, labels = write_set(tmp_path, "train", zipped=zipped)
    write_set(tmp_path, "t10k", count=12, zipped=zipped)
    task = small(tmp_path, partition="all")
    read, marks = task.train_examples(0, 1, 0).tensors
    assert torch.equal(read, torch.from_numpy(images.astype(np.uint8)))
    assert marks.tolist() == labels.tolist()
    assert len(task.test_examples()) == 12


def test_a_folder_with_one_set_is_split_by_a_fixed_key(tmp_path):
    write_set(tmp_path, "t10k")
    task = small(tmp_path, test_fraction=0.25)
    assert len(task.test_examples()) == 10
    assert sum(len(task.train_examples(i, 3, 5)) for i in range(3)) == 30
    assert torch.equal(task.test_examples().tensors[0], small(tmp_path, test_fraction=0.25).test_examples().tensors[0])


def test_pixels_reach_the_network_between_zero_and_one(tmp_path):
    write_set(tmp_path, "t10k")
    task = small(tmp_path)
    seen = []
    model = task.model().double()
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    examples = task.train_examples(0, 1, 0)
    task.loss(model, examples.batch(torch.arange(len(examples)), CPU))
    assert seen[0].dtype == torch.float64
    assert 0.9 < seen[0].max() <= 250 / 255


def test_damaged_files_are_named_with_what_is_wrong(tmp_path):
    write_set(tmp_path, "train", zipped=False)
    write_set(tmp_path, "t10k", zipped=False)
    path = tmp_path / "train-images-idx3-ubyte"
    good = path.read_bytes()
    huge = struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1)
    for data, wrong in (
        (b"", "starts with nothing"),
        (b"\x89PNG" + good, "starts with 89504e47"),
        (good[:9], "ends within its header"),
        (good[:-1], "holds 2559 of the 2560 bytes"),
        (good + b"\0", "holds more than the 2560 bytes"),
        (huge, "claims shape"),
        (b"\0\0\x0d\x03" + good[4:], "holds type 0x0d in 3 dimensions"),
        (idx_bytes(np.zeros(4)), "holds type 0x08 in 1 dimensions"),
        (idx_bytes(np.zeros((39, 8, 8))), "has 39 images but train-labels-idx1-ubyte has 40 labels"),
        (idx_bytes(np.zeros((40, 9, 9))), r"images of \(9, 9\) pixels; task.size is \(8, 8\)"),
    ):
        path.write_bytes(data)
        from thinwire.tasks.idx import _read_folder

        _read_folder.cache_clear()
        with pytest.raises(ConfigError, match=wrong):
            small(tmp_path).test_examples()


def test_a_cut_gzip_file_and_a_label_out_of_range_are_refused(tmp_path):
    write_set(tmp_path, "t10k")
    with pytest.raises(ConfigError, match=r"holds label 3; task\.classes is 3"):
        small(tmp_path, classes=3).test_examples()
    path = tmp_path / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ConfigError, match=r"cannot read .*labels-idx1"):
        small(tmp_path, test_fraction=0.5).test_examples()


@pytest.mark.parametrize(
    ("names", "wrong"),
    [
        ([], "holds no IDX files"),
        (["train", "other"], "expected train and t10k"),
        (["lone"], "lacks the labels of 'lone'"),
    ],
)
def test_a_folder_without_the_right_sets_is_refused(tmp_path, names, wrong):
    for name in names:
        write_set(tmp_path, name)
    if names == ["lone"]:
        (tmp_path / "lone-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ConfigError, match=wrong):
        small(tmp_path).test_examples()
    with pytest.raises(ConfigError, match="is no folder"):
        small(tmp_path / "nowhere").test_examples()


@pytest.mark.skipif(not (MNIST / "t10k-images-idx3-ubyte.gz").exists(), reason="the MNIST files are not here")
def test_the_ten_thousand_digits_of_mnist_are_read():
    task = IdxImages(str(MNIST), partition="iid")
    images, labels = task.test_examples().tensors
    assert images.shape == (2000, 28, 28)
    assert labels.bincount().min() > 150
    assert sum(p.numel() for p in task.model().parameters()) == 20_490
    assert task.loss(task.model(), (images[:8], labels[:8])).item() == pytest.approx(2.3, abs=0.3)


# -- by name -----------------------------------------------------------------------------------------------------


def test_the_registry_finds_every_task_of_the_folder():
    assert registry() == {"adversarial-digits": AdversarialDigits, "digits": Digits, "idx": IdxImages, "text": Text}


def test_a_task_is_built_from_its_section():
    task = load_task({"name": "digits", "hidden": [32], "client-test-fraction": 0.1, "trainable": ["2.*"]})
    assert task == Digits(hidden=(32,), client_test_fraction=0.1)


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({}, "task.name is missing; known: adversarial-digits, digits, idx, text"),
        ({"name": "digit"}, "did you mean 'digits'"),
        ({"name": "digits", "hiden": [3]}, "did you mean 'hidden'"),
        ({"name": "digits", "alpha": 0}, "alpha = 0.0 is not above 0"),
        ({"name": "digits", "partition": "random"}, "task.partition = 'random'"),
        ({"name": "digits", "dropout": 1.0}, "dropout = 1.0"),
        ({"name": "digits", "test_fraction": 0}, "test_fraction = 0.0"),
        ({"name": "idx"}, "'task.path' is missing"),
        ({"name": "idx", "path": ".", "size": [3, 28]}, "at least 4 pixels"),
        ({"name": "no_such_module_here:Thing"}, "ModuleNotFoundError.*PYTHONPATH"),
        ({"name": "thinwire.tasks.digits:Nothing"}, "AttributeError"),
        ({"name": "thinwire.device:choose_device"}, "is no subclass"),
        ({"name": "thinwire.tasks.base:Task"}, "lacks the method"),
    ],
)
def test_a_section_that_names_no_task_is_refused_in_one_line(options, wrong):
    with pytest.raises(ConfigError, match=wrong) as caught:
        load_task(options)
    assert "\n" not in str(caught.value)


def test_a_task_of_ones_own_must_be_a_frozen_dataclass(monkeypatch):
    class Plain(Digits):
        pass

    monkeypatch.setattr("thinwire.tasks.digits.Plain", Plain, raising=False)
    with pytest.raises(ConfigError, match="no frozen dataclass"):
        load_task({"name": "thinwire.tasks.digits:Plain"})


def test_a_peer_cannot_name_a_class_that_this_machine_does_not(tmp_path, monkeypatch):
    (tmp_path / "trap_task.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="nothing was imported"):
        load_task({"name": "trap_task:Task"}, allowed=["examples.own_task:Line"])
    assert "trap_task" not in sys.modules
    assert load_task({"name": "digits"}, allowed=[]) == Digits()


def test_a_module_of_the_current_folder_can_be_named(tmp_path):
    source = (ROOT / "examples" / "own_task.py").read_text()
    (tmp_path / "mine.py").write_text(source)
    program = "from thinwire.tasks.registry import load_task; print(load_task({'name': 'mine:Line', 'noise': 0.5}))"
    command = [sys.executable, "-I", "-c", f"import sys; sys.path.append({str(ROOT)!r}); {program}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "Line(noise=0.5)\n"


# -- what is trained ---------------------------------------------------------------------------------------------


def test_patterns_choose_what_is_trained():
    layout = trainable_layout(Digits().model(), trainable_patterns({"trainable": ["4.*", "*.bias"]}))
    assert [e.name for e in layout.entries] == ["0.bias", "2.bias", "4.weight", "4.bias"]
    assert [e.name for e in layout.frozen] == ["0.weight", "2.weight"]
    assert not trainable_layout(Digits().model()).frozen


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"no trainable parameter matches '4.wieght'; did you mean '4.weight'"):
        trainable_layout(Digits().model(), ["4.wieght"])
    with pytest.raises(ConfigError, match="not a list of name patterns"):
        trainable_patterns({"trainable": "head.*"})


def test_initial_weights_follow_from_the_seed_alone():
    before = torch.get_rng_state()
    first, again, other = (initial_model(Digits(), seed).state_dict()["0.weight"] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


# -- device ------------------------------------------------------------------------------------------------------


def test_a_device_that_is_not_there_is_refused_with_those_that_are():
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ConfigError, match=r"device = 'cuda:99' is not there.*known here: auto, cpu"):
        choose_device("cuda:99")
    with pytest.raises(ConfigError, match="device = 'gpu'"):
        choose_device("gpu")


def test_threads_are_set_and_a_negative_number_is_refused():
    before = torch.get_num_threads()
    try:
        set_threads(1)
        assert torch.get_num_threads() == 1
        set_threads(0)
        assert torch.get_num_threads() >= 1
    finally:
        torch.set_num_threads(before)
    with pytest.raises(ConfigError, match="threads = -1"):
        set_threads(-1)


def test_seeded_draws_repeat_and_leave_no_trace_even_after_an_error():
    def draw():
        with seeded(Key(4, "draw"), CPU):
            return torch.rand(3)

    before = torch.get_rng_state()
    assert torch.equal(draw(), draw())
    with pytest.raises(ZeroDivisionError), seeded(Key(5), CPU):
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), before)
