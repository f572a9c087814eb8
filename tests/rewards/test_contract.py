"""What every method in METHODS promises; a new method is tested by being registered."""

import dataclasses
import inspect
import json

import numpy as np
import pytest
from quick_methods import estimator

from palm.arrays import read_arrays, write_arrays
from palm.artifacts import ArtifactError
from palm.features.pairs import PairFeatures
from palm.rewards import METHODS, RewardModel, load_reward_model
from palm.rewards.questions import ABLE, ask, next_question
from palm.rewards.users import GEOMETRIES, UserWeights

LEARNING = sorted(set(METHODS) - {"Reference"})  # Reference fits nothing and looks at no features
AMORTISED = {"VPL", "VRF"}  # read a user by a learned encoder, which nothing obliges to move towards a pair
methods = pytest.mark.parametrize("method", sorted(METHODS))
learning = pytest.mark.parametrize("method", LEARNING)


def turned(pairs):
    return PairFeatures.from_items(pairs.user, pairs.items, pairs.rejected_row, pairs.chosen_row, scores=pairs.scores)


def assert_same_model(first, second, pairs, **tolerance):
    users = (first.infer(pairs), second.infer(pairs))
    compare = np.testing.assert_allclose if tolerance else np.testing.assert_array_equal
    compare(first.margin(pairs, users[0]), second.margin(pairs, users[1]), **tolerance)
    compare(users[0].mean, users[1].mean, **tolerance)
    compare(users[0].covariance, users[1].covariance, **tolerance)
    if type(first).basis is not RewardModel.basis:
        compare(first.basis(pairs.items), second.basis(pairs.items), **tolerance)


@methods
def test_hyper_parameters_go_to_the_constructor_and_data_and_seed_to_fit(method):
    parameters = inspect.signature(METHODS[method]).parameters
    assert not {"features", "pairs", "data", "seed"} & set(parameters)
    assert all(parameter.default is not inspect.Parameter.empty for parameter in parameters.values())
    fit = inspect.signature(METHODS[method].fit).parameters
    assert list(fit) == ["self", "features", "seed"]
    assert fit["seed"].default == 0


@methods
def test_fitting_changes_neither_the_estimator_nor_the_pairs(method, small):
    made, pairs = estimator(method), small.seen
    before = repr(made), pairs.chosen.copy(), pairs.user.copy()
    made.fit(pairs)
    assert repr(made) == before[0]
    np.testing.assert_array_equal(pairs.chosen, before[1])
    np.testing.assert_array_equal(pairs.user, before[2])


@methods
def test_the_result_is_immutable_and_says_how_users_enter(method, fitted):
    model = fitted(method)
    assert isinstance(model, RewardModel)
    assert model.geometry == METHODS[method].geometry
    assert model.geometry in GEOMETRIES
    assert model.method == method
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.method = "other"


@methods
def test_the_margin_turns_its_sign_when_a_pair_is_turned(method, fitted, small):
    model, pairs = fitted(method), small.seen
    users = model.infer(pairs)
    margin = model.margin(pairs, users)
    assert margin.shape == (len(pairs),)
    assert np.ptp(margin) > 0
    np.testing.assert_allclose(model.margin(turned(pairs), users), -margin, atol=1e-9)
    same = PairFeatures.from_items(pairs.user, pairs.items, pairs.chosen_row, pairs.chosen_row, scores=pairs.scores)
    np.testing.assert_array_equal(model.margin(same, users), 0)


@methods
def test_the_model_agrees_with_the_pairs_it_saw_more_often_than_chance(method, fitted, small):
    model = fitted(method)
    assert (model.margin(small.seen, model.infer(small.seen)) > 0).mean() > 0.6


@methods
def test_basis_rewards_lie_between_0_and_1_and_grow_with_the_raw_ones(method, fitted, small):
    model = fitted(method)
    if type(model).basis is RewardModel.basis:
        with pytest.raises(TypeError, match=f"{method}: has no basis rewards on features"):
            model.basis(small.seen.items)
        return
    basis = model.basis(small.seen.items)
    bases = model.infer(small.seen).mean.shape[1]
    assert basis.shape == (len(small.seen.items), bases)
    assert basis.min() >= 0
    assert basis.max() <= 1
    assert (np.ptp(basis, axis=0) > 0.2).all()
    extreme = 1e3 * small.seen.items.rows(np.arange(5))
    assert np.isin(np.round(model.basis(extreme), 12), [0, 1]).mean() > 0.9
    assert model.basis(np.zeros((0, small.seen.width))).shape == (0, bases)


@methods
def test_inferred_weights_have_the_models_geometry_and_covariances_that_are_ones(method, fitted, small):
    model = fitted(method)
    users = model.infer(small.unseen_context)
    bases = users.mean.shape[1]
    assert users.ids.tolist() == sorted(set(small.unseen_context.user))
    assert users.covariance.shape == (len(users), bases, bases)
    np.testing.assert_allclose(users.covariance, users.covariance.transpose(0, 2, 1), atol=1e-12)
    assert np.linalg.eigvalsh(users.covariance).min() >= -1e-12
    if model.geometry == "simplex":
        np.testing.assert_allclose(users.mean.sum(axis=1), 1, atol=1e-12)
        assert users.mean.min() >= 0
        np.testing.assert_allclose(users.covariance.sum(axis=2), 0, atol=1e-9)  # weights stay on the simplex
    else:
        assert users.geometry == model.geometry or model.geometry == "none"


@methods
def test_users_come_back_in_the_order_asked_for_and_unknown_ones_get_the_same(method, fitted, small):
    model, context = fitted(method), small.unseen_context
    wanted = np.array(["nobody", context.ids[1], "keiner-✓", context.ids[0]])
    users = model.infer(context, ids=wanted)
    plain = model.infer(context)
    assert users.ids.tolist() == wanted.tolist()
    np.testing.assert_allclose(users.mean[[1, 3]], plain.mean[[1, 0]], rtol=1e-5, atol=1e-6)  # networks are float32
    np.testing.assert_array_equal(users.mean[0], users.mean[2])
    nobody = context.select(np.array([], dtype=int))
    np.testing.assert_allclose(model.infer(nobody, ids=wanted[:1]).mean[0], users.mean[0], atol=1e-12)
    assert len(model.infer(nobody)) == 0


@methods
def test_one_pair_moves_a_user_towards_it_or_not_at_all(method, fitted, small):
    model = fitted(method)
    one = small.unseen_context.select(np.array([0]))
    before = model.infer(one.select(np.array([], dtype=int)), ids=one.user)
    after, against = model.infer(one), model.infer(turned(one))
    margin = model.margin(one, before)[0]
    if method not in AMORTISED:
        assert model.margin(one, against)[0] - 1e-9 <= margin <= model.margin(one, after)[0] + 1e-9
    if after.mean.shape[1] > 1:
        spread = [np.trace(users.covariance[0]) for users in (before, after)]
        assert spread[1] != spread[0]


@methods
def test_the_same_seed_gives_the_same_model(method, fitted, small):
    assert_same_model(estimator(method).fit(small.seen, seed=3), fitted(method), small.seen)


@methods
def test_the_order_of_the_pairs_does_not_matter(method, fitted, small):
    mixed = small.seen.select(np.random.default_rng(0).permutation(len(small.seen)))
    assert_same_model(estimator(method).fit(mixed, seed=3), fitted(method), small.seen, rtol=2e-3, atol=2e-3)


@methods
def test_saving_and_loading_changes_no_bit(method, fitted, small, tmp_path):
    model = fitted(method)
    model.save_pretrained(tmp_path)
    for loaded in (type(model).from_pretrained(tmp_path), load_reward_model(tmp_path)):
        assert type(loaded) is type(model)
        assert (loaded.method, loaded.geometry) == (model.method, model.geometry)
        assert_same_model(model, loaded, small.seen)
        assert (loaded.users is None) == (model.users is None)
        if model.users is not None:
            assert loaded.users.ids.tolist() == model.users.ids.tolist()
            np.testing.assert_array_equal(loaded.users.mean, model.users.mean)
            np.testing.assert_array_equal(loaded.users.covariance, model.users.covariance)
    assert not [path for path in tmp_path.rglob("*") if path.suffix not in (".json", ".safetensors")]  # never pickle


@methods
def test_users_with_any_name_survive_saving(method, small, tmp_path):
    names = np.array(["用户", "e\u0301", "\u00e9", 'quote"\\', "a b", "🙂"])
    renamed = PairFeatures.from_items(
        names[small.seen.code], small.seen.items, small.seen.chosen_row, small.seen.rejected_row, scores=small.seen.scores
    )
    model = estimator(method).fit(renamed)
    model.save_pretrained(tmp_path)
    users = load_reward_model(tmp_path).users
    assert users is None or users.ids.tolist() == sorted(names)
    assert model.infer(renamed).ids.tolist() == sorted(names)


@learning
def test_features_of_another_width_are_refused(method, fitted):
    model, wider = fitted(method), PairFeatures(["a"], np.zeros((1, 5)), np.ones((1, 5)))
    message = "features: expected 4 numbers per text as in the fit, got 5"
    if type(model).basis is not RewardModel.basis:
        with pytest.raises(ValueError, match=message):
            model.basis(np.zeros((3, 5)))
    for call in (lambda: model.infer(wider), lambda: model.margin(wider, model.infer(wider, ids=np.array([])))):
        if model.geometry != "none":
            with pytest.raises(ValueError, match=message):
                call()


@methods
def test_damaged_files_are_named(method, fitted, tmp_path):
    fitted(method).save_pretrained(tmp_path)
    for path in sorted(tmp_path.rglob("*")):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(ArtifactError, match=path.name):
            load_reward_model(tmp_path)
        path.write_bytes(content)
        path.unlink()
        with pytest.raises(ArtifactError, match=f"{path.name}: no such file"):
            load_reward_model(tmp_path)
        path.write_bytes(content)
    assert load_reward_model(tmp_path).method == method


@methods
def test_a_model_without_a_part_is_named(method, fitted, tmp_path):
    fitted(method).save_pretrained(tmp_path)
    record = (tmp_path / "reward.json").read_text()
    (tmp_path / "reward.json").write_text(record.replace('"geometry"', '"geography"'))
    with pytest.raises(ArtifactError, match=r"reward.json: expected a reward model of a known geometry, got None"):
        load_reward_model(tmp_path)
    (tmp_path / "reward.json").write_text(record.replace("palm.RewardModel/1", "palm.RewardModel/0"))
    with pytest.raises(ArtifactError, match=r"reward.json: expected a palm.RewardModel/1"):
        load_reward_model(tmp_path)
    (tmp_path / "reward.json").write_text(record.replace('"details"', '"particulars"'))
    if method != "Reference":
        with pytest.raises(ArtifactError, match=r"reward\.json: not a complete reward model: KeyError.'details'"):
            load_reward_model(tmp_path)


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("LoRe", {"population": None}, "population: expected what a model is saved with, got None"),
        (
            "LoRe",
            {"population": {"mean": [1.0], "precision": [[0.0]], "concentration": 0.1}},
            "population: expected 5, one per basis, got 1",
        ),
        ("LoRe", {"population": {"mean": [0.5, 0.5], "precision": [[0.0]], "concentration": 0.1}}, "population: .*precision: "),
        ("LoRe", {"names": ["one"]}, "names: expected 5, one per basis, got 1"),
        ("LoRe", {"names": None}, "not a complete reward model: TypeError"),
        ("LoRe", {"sharpness": "x"}, r"sharpness: expected what a model is saved with, got \W*x\W"),
        ("LoRe", {"method": "Nope"}, r"method: expected one of geometry 'simplex' \(LoRe, VRF, Given\), got 'Nope'"),
        ("PReF", {"method": ["LoRe"]}, r"method: expected one of geometry 'linear' \(PReF\), got \['LoRe'\]"),
        ("PReF", {"population": {"mean": [1.0], "covariance": [[1.0]]}}, "population: expected 5, one per basis, got 1"),
        ("PReF", {"population": []}, "population: expected what a model is saved with, got "),
        ("PAL", {"scale": None}, "scale: expected what a model is saved with, got None"),
        ("PAL", {"population": {"mean": [1.0], "covariance": [[1.0]]}}, "population: expected 4, one per basis, got 1"),
        ("VRF", {"names": ["one"]}, "names: expected 3, one per basis, got 1"),
    ],
)
def test_a_damaged_record_names_file_and_key(method, changes, message, fitted, tmp_path):
    fitted(method).save_pretrained(tmp_path)
    path = tmp_path / "reward.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ArtifactError, match=r"reward\.json: .*" + message):
        load_reward_model(tmp_path)


@methods
def test_weights_of_another_kind_of_model_are_named(method, fitted, small):
    model = fitted(method)
    own = model.infer(small.seen)
    kind, bases = own.geometry, own.mean.shape[1]
    other = "latent" if kind == "simplex" else "simplex"
    for geometry, width in ((other, bases), (kind, bases + 1), (kind, 1 if bases > 1 else 2)):
        users = UserWeights(own.ids, np.full((len(own), width), 1 / width), np.zeros((len(own), width, width)), geometry)
        if model.geometry == "none":  # whoever they are, the margin is the same
            np.testing.assert_array_equal(model.margin(small.seen, users), model.margin(small.seen, own))
            continue
        message = (
            f"users: expected weights of geometry '{kind}' over {bases} bases, as this model's infer gives them, "
            f"got '{geometry}' over {width}"
        )
        with pytest.raises(ValueError, match=message):
            model.margin(small.seen, users)


@methods
def test_questions_are_asked_of_models_that_can_weigh_them_and_others_are_named(method, fitted, small):
    model = fitted(method)
    if method in ABLE:
        asked = ask(model, small.unseen_context, budget=2)
        assert (asked.rows >= 0).all()
        mine = small.unseen_context.select(np.flatnonzero(small.unseen_context.code == 0))
        assert next_question(model, mine.select(asked.rows[0, :1]), mine).index == asked.rows[0, 1]
        return
    with pytest.raises(
        TypeError, match=rf"model: expected one with pair_scores \(of LoRe, PReF, VRF, Given\), got a {type(model).__name__}"
    ):
        ask(model, small.unseen_context, budget=2)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("BradleyTerry", {"penalty": 0.0}),
        ("Given", {"concentration": -1.0}),
        ("LoRe", {"rank": 0}),
        ("LoRe", {"restarts": -1}),
        ("LoRe", {"restarts": 1.5}),
        ("PReF", {"population": "no"}),
        ("PAL", {"hinge": 1}),
        ("VRF", {"product": "no"}),
        ("LoRe", {"rank": np.float64(2)}),
        ("PAL", {"variant": "C"}),
        ("PReF", {"user_penalty": float("nan")}),
        ("VPL", {"learning_rate": 0.0}),
        ("VRF", {"samples": 0}),
    ],
)
def test_hyper_parameters_out_of_range_are_refused_before_there_is_data(name, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}: expected "):
        METHODS[name](**options)


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"Reference", "Given"}))
def test_damaged_numbers_are_named_when_a_model_is_loaded(method, fitted, tmp_path):
    fitted(method).save_pretrained(tmp_path)
    path = tmp_path / "reward.safetensors"
    whole = read_arrays(path)
    for name, array in whole.items():
        spoilt = array.copy()
        spoilt.flat[-1] = np.nan
        write_arrays(path, {**whole, name: spoilt})
        with pytest.raises(ArtifactError, match=rf"reward.safetensors: {name}: expected numbers, got NaN at \("):
            load_reward_model(tmp_path)
        write_arrays(path, {**whole, name: array[:-1]})
        with pytest.raises(ArtifactError, match=rf"reward.safetensors: {name}: expected the shape \[{len(array)}[,\]]"):
            load_reward_model(tmp_path)
    write_arrays(path, whole)
    record = json.loads((tmp_path / "reward.json").read_text())
    (tmp_path / "reward.json").write_text(json.dumps({key: value for key, value in record.items() if key != "shapes"}))
    assert load_reward_model(tmp_path).method == fitted(method).method  # saved by an older version


@pytest.mark.parametrize("method", sorted(METHODS))
def test_what_is_not_pairs_users_or_a_seed_is_named(method, fitted, small):
    if method != "Reference":
        with pytest.raises(ValueError, match="features: expected PairFeatures, got ndarray"):
            estimator(method).fit(np.zeros((3, 2)))
        for seed in (-1, "x", 1.5, True):
            with pytest.raises(ValueError, match="seed: expected a whole number of at least 0, got "):
                estimator(method).fit(small.seen, seed=seed)
    model = fitted(method)
    if model.geometry != "none":
        with pytest.raises(ValueError, match="context: expected PairFeatures, got ndarray"):
            model.infer(np.zeros((3, 2)))
        with pytest.raises(ValueError, match="users: expected UserWeights, as this model's infer gives them, got NoneType"):
            model.margin(small.seen, None)


def test_users_of_no_geometry_are_refused():
    with pytest.raises(ValueError, match="geometry: expected one of simplex, linear, latent, none, got 'flat'"):
        UserWeights(np.array(["a"]), np.ones((1, 1)), np.zeros((1, 1, 1)), "flat")


def test_whole_numbers_may_be_numpys_and_the_model_can_be_saved(small, tmp_path):
    model = METHODS["LoRe"](rank=np.int64(2), restarts=np.int32(0), penalty=3.0, personal_penalty=3.0).fit(small.seen)
    model.save_pretrained(tmp_path)
    METHODS["PReF"](rank=np.int64(2), penalty=3.0).fit(small.seen).save_pretrained(tmp_path)
    assert load_reward_model(tmp_path).details["rank"] == 2
