"""Differentiable operations, one file per family: names and arguments as in torch.nn.functional."""

from nnx.functional.activation import *  # noqa: F403
from nnx.functional.conv import *  # noqa: F403
from nnx.functional.conv_arithmetic import *  # noqa: F403
from nnx.functional.dropout import *  # noqa: F403
from nnx.functional.embedding import *  # noqa: F403
from nnx.functional.linear import *  # noqa: F403
from nnx.functional.loss import *  # noqa: F403
from nnx.functional.norm import *  # noqa: F403
from nnx.functional.pad import *  # noqa: F403
from nnx.functional.penalty import *  # noqa: F403
from nnx.functional.pool import *  # noqa: F403
from nnx.functional.recurrent import *  # noqa: F403
from nnx.functional.true_conv import *  # noqa: F403
