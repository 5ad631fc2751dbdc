"""Layers and what holds them together: names and arguments as in torch.nn."""

from nnx import functional  # noqa: F401
from nnx.autograd import Parameter  # noqa: F401
from nnx.nn import init, utils  # noqa: F401
from nnx.nn.activation import *  # noqa: F403
from nnx.nn.container import *  # noqa: F403
from nnx.nn.conv import *  # noqa: F403
from nnx.nn.dropout import *  # noqa: F403
from nnx.nn.embedding import *  # noqa: F403
from nnx.nn.linear import *  # noqa: F403
from nnx.nn.loss import *  # noqa: F403
from nnx.nn.module import Module  # noqa: F401
from nnx.nn.norm import *  # noqa: F403
from nnx.nn.pool import *  # noqa: F403
from nnx.nn.recurrent import *  # noqa: F403
