from .formats import DEFAULT as DEFAULT
from .formats import FILES as FILES
from .formats import FORMATS as FORMATS
from .formats import check_format as check_format
from .formats import write_export as write_export
from .place import put as put
from .released import About as About
from .released import Released as Released
