"""The layers of the networks as differentiable primitives, and AdamW.

Images are channel last, (..., H, W, C). `conv`, `norm` and `layers` are the layers, `fused` is
the fast twin of three of them, `winograd` of convolution.
"""

from .conv import conv2d as conv2d
from .fused import fused_layer as fused_layer
from .fused import fused_preactivation as fused_preactivation
from .layers import avg_pool as avg_pool
from .layers import linear as linear
from .layers import relu as relu
from .norm import batch_norm as batch_norm
from .norm import update_running as update_running
from .optim import adamw as adamw
from .optim import init_moments as init_moments
