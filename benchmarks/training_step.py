import os
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import sys, time
import numpy as np
from ckd_ref.optim import init_moments
from ckd_ref.runs import Config, Run
from ckd_ref.training import Batch, train_step

def make_step(width, batch, steps, classes=101, seed=0, network="full"):
    from ckd_ref.team import Team
    team = Team(int(os.environ.get("TH", "2"))).__enter__()
    rng = np.random.default_rng(seed)
    config = Config(method="ckd", network=network, width=width, T=steps, batch=batch)
    net = config.model(classes)
    params, state = net.init(rng)
    run = Run(params, state, init_moments(params), rng)
    static = np.repeat(rng.random((1, batch, 48, 48, 1), dtype=np.float32), steps, axis=0).repeat(2, axis=-1)
    events = ((rng.random((steps, batch, 48, 48, 2)) < 0.1) * rng.integers(1, 4, (steps, batch, 48, 48, 2))).astype(np.float32)
    b = Batch(static, events, rng.integers(classes, size=batch), rng.normal(size=(batch, classes)).astype(np.float32))
    def step():
        step.n += 1
        return train_step(net, run, b, config, 1e-3, 1.0, step.n, team)["loss"]
    step.n = 0
    return step
if __name__ == "__main__":
    w=float(sys.argv[1]); s=make_step(w,16,6)
    ts=[]
    for _ in range(5):
        t=time.perf_counter(); l=s(); ts.append(time.perf_counter()-t)
    print(w,[round(t,3) for t in ts],l)
    if len(sys.argv)>2:
        import cProfile,pstats
        p=cProfile.Profile(); p.enable(); s(); s(); p.disable()
        pstats.Stats(p).sort_stats('tottime').print_stats(28)
