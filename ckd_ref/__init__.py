"""Reference implementation of Cross Knowledge Distillation between artificial and spiking neural networks.

Each module is one idea; the equations of the paper are in `neuron` (1-3), `events` (4), `similarity` and `losses`
(5-7, 9, 11) and `schedules` (8, 10).
"""

from .camera import Camera, Saccades, record
from .color import rgb_to_hsv, value_frames
from .data import PairedData, PairedWriter, open_paired
from .events import EVENT_DTYPE, FormatError, bin_events, check_events, resize_frames
from .losses import (ckd_loss, cross_entropy, dist_loss, dkd_loss, domain_alignment_loss, kd_loss, luminet_loss,
                     tet_loss)
from .models import VGGSNN, Teacher
from .neuron import lif, lif_step, spike, surrogate_grad
from .runs import Config, load_checkpoint
from .schedules import learning_rate, phase_weight, replacement_probability
from .similarity import linear_cka
from .training import train

__version__ = "0.1.0"
