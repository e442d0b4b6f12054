from ._layers import *
