"""The reference under test: against a second implementation, against central differences, and against itself."""

import sys
import unittest

try:
    import torch
except ImportError:
    print("skipped: torch cannot be imported")
    sys.exit(77)

import cases
import compare
import m2se_torch
import naive
from make_fixtures import CASES, EVERYTHING, GAPS

# All options at sizes where a loss takes the naive code a few milliseconds; heads of more than one number each.
TINY = m2se_torch.Config(d=5, da=3, h=4, experts=2, layers=2, heads=2, ffn=3, max_len=3, tau=0.3, lam=0.7)
COMMON = dict(sequences=4, items=5, bare_items=1, options=EVERYTHING, **GAPS)
TINY_CASES = {
    "last": cases.Case(TINY, seed=33, **COMMON),
    "all": cases.Case(TINY, seed=33, all_positions=True, **COMMON),
}
# Central differences of a smooth function of size one in float64: h^2 of the third derivative, and 1e-16 / h.
STEP = 1e-5
DIFFERENCE_TOLERANCE = 1e-7


def drawn(case):
    """The case's model and batch with their float32 values in float64."""
    weights = {name: tensor.double() for name, tensor in cases.draw_model(case).items()}
    batch = {
        name: tensor.double() if tensor.is_floating_point() else tensor
        for name, tensor in cases.draw_batch(case).items()
    }
    return weights, batch


def exact(case, weights, batch, dtype=torch.float64):
    model = m2se_torch.M2SE.from_file(weights, case.config.to_metadata(), dtype)
    return m2se_torch.forward_backward(model, batch)


class AgainstNaive(unittest.TestCase):
    def test_losses_and_vectors_of_every_small_fixture(self):
        for name, case in CASES.items():
            if case.sequences > 20:
                continue  # minutes of naive code, and nothing in the reference depends on how many there are
            weights, batch = drawn(case)
            got = exact(case, weights, batch)
            expected = naive.evaluate(naive.lists(weights), naive.lists(batch), case.config)
            for key, value in expected.items():
                with self.subTest(fixture=name, tensor=key):
                    value = torch.tensor(value, dtype=torch.float64)
                    difference = (got[key].reshape(value.shape) - value).abs().max()
                    self.assertLess(float(difference), 1e-10 * max(1.0, float(value.abs().max())))

    def test_every_number_of_every_gradient(self):
        """Central differences of the naive loss, one number at a time."""
        for name, case in TINY_CASES.items():
            weights, batch = drawn(case)
            got = exact(case, weights, batch)
            w, b = naive.lists(weights), naive.lists(batch)
            total = compare.gradient_norm(got)
            for key in [key for key in got if key.startswith("grad.")]:
                key = key[len("grad.") :]
                differences = []
                for row, i in numbers((w if key in w else b)[key]):
                    value, ends = row[i], []
                    for side in (STEP, -STEP):
                        row[i] = value + side
                        ends.append(naive.evaluate(w, b, case.config)["loss"])
                    row[i] = value
                    differences.append((ends[0] - ends[1]) / (2 * STEP))
                error = torch.tensor(differences, dtype=torch.float64) - got["grad." + key].flatten()
                with self.subTest(objective=name, tensor=key):
                    self.assertLess(float(error.abs().max()), DIFFERENCE_TOLERANCE * total)


def numbers(values):
    """(list, index) of every number in nested lists, in the order of the tensor's memory."""
    for i, value in enumerate(values):
        if isinstance(value, list):
            yield from numbers(value)
        else:
            yield values, i


class AgainstDifferences(unittest.TestCase):
    def test_random_directions_at_real_sizes(self):
        """Too large for the naive code: the reference's own losses, along one random direction per tensor."""
        config = m2se_torch.Config(d=48, da=16, h=24, experts=5, layers=3, heads=3, ffn=40, max_len=12, lam=0.5)
        for all_positions in (False, True):
            case = cases.Case(
                config, seed=33, sequences=9, items=20, all_positions=all_positions, options=EVERYTHING, **GAPS
            )
            weights, batch = drawn(case)
            got = exact(case, weights, batch)
            total = compare.gradient_norm(got)
            draw = cases.Draw(34)
            for key in [key[len("grad.") :] for key in got if key.startswith("grad.")]:
                owner = weights if key in weights else batch
                value, ends = owner[key], []
                direction = draw.normal(tuple(value.shape)).double()
                direction /= direction.norm()
                for side in (STEP, -STEP):
                    owner[key] = value + side * direction
                    ends.append(float(exact(case, weights, batch)["loss"]))
                owner[key] = value
                slope = float((got["grad." + key] * direction).sum())
                with self.subTest(all_positions=all_positions, tensor=key):
                    self.assertLess(abs((ends[0] - ends[1]) / (2 * STEP) - slope), DIFFERENCE_TOLERANCE * total)


class Properties(unittest.TestCase):
    def test_order_of_examples_does_not_matter(self):
        case = cases.Case(TINY, seed=35, sequences=5, items=6, lengths="full")
        weights, batch = drawn(case)
        forwards = exact(case, weights, batch)
        for name in ("seq_items", "swap"):
            batch[name] = batch[name].reshape(5, 3).flip(0).flatten()
        batch["target"] = batch["target"].flip(0)
        backwards = exact(case, weights, batch)
        backwards["user_vectors"] = backwards["user_vectors"].flip(0)
        for name in forwards:
            self.assertTrue(torch.allclose(forwards[name], backwards[name], rtol=1e-9, atol=1e-12), name)

    def test_callers_tensors_stay_as_they_are(self):
        case = TINY_CASES["all"]
        batch = cases.draw_batch(case)
        weights = cases.draw_model(case)
        first = exact(case, weights, batch, torch.float32)
        self.assertFalse(any(tensor.requires_grad for tensor in batch.values()))
        again = exact(case, weights, batch, torch.float32)
        self.assertTrue(all(torch.equal(first[name], again[name]) for name in first))

    def test_rounding_stays_far_from_the_tolerance(self):
        for name, case in CASES.items():
            weights, batch = cases.draw_model(case), cases.draw_batch(case)
            rounded = exact(case, weights, batch, torch.float32)
            for key, error, limit, _ in compare.compare(rounded, exact(case, weights, batch), case.config.tau):
                with self.subTest(fixture=name, tensor=key):
                    self.assertLess(error, limit / 5)

    def test_malformed_batches_are_refused(self):
        case = TINY_CASES["all"]
        weights, sound = cases.draw_model(case), cases.draw_batch(case)
        for name, value in (("seq_items", 5), ("target", -1), ("pos_target", -2), ("swap", 2), ("text_ptr", 1)):
            batch = {key: tensor.clone() for key, tensor in sound.items()}
            batch[name][0] = value
            with self.subTest(tensor=name), self.assertRaises(m2se_torch.Malformed):
                exact(case, weights, batch)


class Comparison(unittest.TestCase):
    """compare.py must see what it is there to see."""

    def setUp(self):
        case = TINY_CASES["all"]
        self.tau = case.config.tau
        self.expected = exact(case, *drawn(case))

    def verdict(self, **changed):
        got = {**self.expected, **changed}
        return [row[0] for row in compare.wrong(compare.compare(got, self.expected, self.tau))]

    def test_equal_is_right(self):
        self.assertEqual(self.verdict(), [])

    def test_each_tensor_scaled(self):
        zero = ("pool.w1.bias", "pool.w2.bias", "key.bias")
        for name, tensor in self.expected.items():
            if not name.endswith(zero):
                self.assertEqual(self.verdict(**{name: tensor * 1.001}), [name])

    def test_zero_gradient_that_is_not(self):
        name = "grad.layers.0.attention.key.bias"
        noise = torch.zeros_like(self.expected[name])
        noise[0] = 1e-5 * compare.gradient_norm(self.expected)
        self.assertEqual(self.verdict(**{name: noise}), [name])
        self.assertEqual(self.verdict(**{name: noise * 1e-3}), [])

    def test_not_a_number_and_wrong_shape(self):
        loss = self.expected["loss"]
        self.assertEqual(self.verdict(loss=loss * float("nan")), ["loss"])
        self.assertEqual(self.verdict(loss=loss.repeat(2)), ["loss"])
        vectors = self.expected["item_vectors"].clone()
        vectors[2, 3] = float("nan")
        self.assertEqual(self.verdict(item_vectors=vectors), ["item_vectors"])

    def test_missing_and_unknown(self):
        got = dict(self.expected)
        got["grad.surprise"] = got.pop("grad.position.weight")
        rows = compare.wrong(compare.compare(got, self.expected, self.tau))
        self.assertEqual({row[0] for row in rows}, {"grad.surprise", "grad.position.weight"})


class Training(unittest.TestCase):
    def batch(self, pos_target=None):
        rows = m2se_torch.ItemRows(None, torch.randn(9, 1, 5), None)
        items = torch.tensor([[1, 2, 3, 4, 5, 6], [7, 8, 1, 0, 0, 0]])
        length, target = torch.tensor([6, 3]), torch.tensor([7, 2])
        return m2se_torch.Batch(9, rows, rows, items, length, target, pos_target=pos_target)

    def test_dropped_positions(self):
        torch.manual_seed(1)
        following = torch.tensor([[2, 3, 4, 5, 6, 7], [8, 1, 2, -1, -1, -1]])
        seen = set()
        for _ in range(300):
            batch = self.batch(following.clone())
            m2se_torch.drop_positions(batch, 0.4)
            for j, source in enumerate(self.batch().items):
                n = int(batch.length[j])
                kept = batch.items[j, :n].tolist()
                original = source[source > 0].tolist()
                self.assertEqual(kept[0], original[0])
                places = [original.index(item) for item in kept]
                self.assertEqual(places, sorted(set(places)))
                wanted = [int(following[j, place]) for place in places[:-1]] + [int(batch.target[j])]
                self.assertEqual(batch.pos_target[j, :n].tolist(), wanted)
                self.assertTrue(bool((batch.pos_target[j, n:] == -1).all()))
                seen.add((j, tuple(kept)))
            self.assertEqual(batch.items.shape[1], int(batch.length.max()))
        self.assertGreater(len(seen), 20)

    def test_nothing_dropped_at_rate_zero(self):
        batch = self.batch()
        m2se_torch.drop_positions(batch, 0.0)
        self.assertTrue(torch.equal(batch.items, self.batch().items))
        self.assertEqual(batch.length.tolist(), [6, 3])

    def test_swap_rate(self):
        torch.manual_seed(2)
        rates = []
        for _ in range(2000):
            batch = self.batch()
            m2se_torch.draw_swap(batch, 0.3)
            rates.append(float(batch.swap.float().mean()))
        self.assertAlmostEqual(sum(rates) / len(rates), 0.3, delta=0.02)

    def test_steps_learn(self):
        """A few steps on one mini-batch lower its loss without dropout."""
        for all_positions in (False, True):
            torch.manual_seed(3)
            config = m2se_torch.Config(d=16, da=8, h=16, experts=2, heads=2, ffn=32, max_len=6)
            case = cases.Case(config, seed=36, sequences=16, items=12, all_positions=all_positions)
            raw = cases.draw_batch(case)
            model = m2se_torch.M2SE(config)
            before = float(m2se_torch.forward_backward(model, raw)["loss"])
            optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
            for _ in range(60):
                m2se_torch.train_step(model, m2se_torch.pad_batch(raw, torch.float32), optimizer)
            after = float(m2se_torch.forward_backward(model, raw)["loss"])
            self.assertLess(after, 0.7 * before)


if __name__ == "__main__":
    unittest.main()
