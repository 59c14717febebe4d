from .pack import run as run
from .read import EncodedPictures as EncodedPictures
from .read import PictureFiles as PictureFiles
from .read import UnreadableError as UnreadableError
from .read import decode as decode
from .read import read_pictures as read_pictures
from .read import usable_rows as usable_rows
