from ichtune.ensemble.blenders.best_member import BestMember


def test_all_weight_lies_on_the_member_with_the_lowest_loss(generated):
    p, y, _ = generated(noises=(1.5, 0.4, 1.0))
    blender = BestMember().fit(p, y)
    assert blender.weights_[:, 0].tolist() == [0.0, 1.0, 0.0]
    assert (blender.predict(p) == p[1]).all()
