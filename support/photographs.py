"""Reads the pictures that people have, from phones, cameras, scanners and microscopes: see helpers.load_picture."""

import warnings

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from support.checks import LabError
from support.files import as_path, existing

# scikit-image carries these in its package, so that no download is needed.
BUNDLED = ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "moon", "rocket")
PICTURE_HELP = f"Give the path of a picture, or one of the bundled names: {', '.join(BUNDLED)}."
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "AVIF", "BMP", "GIF")  # JPEG includes MPO, which phones write
# What turns a picture upright, by its EXIF orientation (1 is upright). Pillow's own exif_transpose writes the rest of
# the EXIF block anew as well, and fails where any of it is broken.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Pillow's own reader of uncompressed TIFFs scrambles those that are turned, and 16-bit channels in separate planes.
TiffImagePlugin.READ_LIBTIFF = True
# One text of a PNG (a prompt, a workflow) may be as long as Pillow allows for all of them together: 64 MB.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY


def open_picture(source):
    """A bundled picture by its name, or a file's by its path: a Pillow image, upright, 8 bits a channel, without
    transparency. Raises LabError as helpers.load_picture does."""
    path = as_path(source, f"A picture's file, or one of the bundled names ({', '.join(BUNDLED)}),")
    if str(path) in BUNDLED:
        import skimage.data  # here, so that reading one's own file does not wait for scikit-image

        return Image.fromarray(getattr(skimage.data, str(path))())
    path = existing(path, "A picture", PICTURE_HELP)
    return _in_bytes(_open(path), path)


def _open(path):
    """The file's picture as it is stored, whole in memory."""
    if not path.is_file():
        raise LabError(f"{path} is a folder, or no ordinary file. {PICTURE_HELP}")
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are about metadata that is not used
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(file, formats=FORMATS)
            # An MPO is one photograph, which its preview, depth map or brighter version may follow.
            frames = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
            if frames > 1:
                parts = "pages" if picture.format == "TIFF" else "frames"
                raise LabError(f"{path} holds {frames} {parts}. Save the one you want as a PNG of its own.")
            if picture.format == "PNG" and picture.mode == "L" and "transparency" in picture.info:
                # Pillow spreads grey of 2 or 4 bits over 8, but not the one value of it that is transparent.
                picture.info["transparency"] *= {"L;2": 85, "L;4": 17}.get(picture.tile[0].args, 1)
            picture.load()
    except LabError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise LabError(f"{path} has too many pixels to open safely. Scale it down first. ({error})") from error
    except UnidentifiedImageError as error:
        raise LabError(
            f"{path} is not a picture that can be read. Save it as PNG, JPEG, WebP, AVIF, BMP, GIF or TIFF (of 8 or 16 "
            "bits), or get a whole copy of it. HEIC and a camera's raw files are exported as JPEG or PNG."
        ) from error
    except PermissionError as error:
        raise LabError(f"{path} may not be read: {error.strerror}. Change its permissions, or read a copy.") from error
    except Exception as error:  # Pillow raises of many kinds, whatever it meets first in a damaged file
        problem = f"{path} is damaged, or of a rare kind: {error}."
        raise LabError(f"{problem} Get a whole copy of the file, or export it as JPEG or PNG.") from error
    return picture


def _in_bytes(picture, path):
    """The picture upright, 8 bits a channel, without transparency."""
    tags = getattr(picture, "tag_v2", {})  # a TIFF's
    if tags.get(254) == 1:  # its NewSubfileType: a reduced version of another image
        raise LabError(f"{path} begins with a preview, as a camera's raw file does. Export it as JPEG or PNG.")
    bits, kinds = max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))), tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))
    if bits > 16 or set(kinds) != {1}:
        kind = {1: "unsigned", 2: "signed", 3: "floating-point"}.get(kinds[0], "unusual")
        problem = f"{path} holds {bits}-bit {kind} values, whose black and white are unknown."
        raise LabError(f"{problem} Save it with 8 bits.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            turn = UPRIGHT.get(picture.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # a broken EXIF block, on which Pillow raises of many kinds, says nothing
        turn = None
    picture = picture if turn is None else picture.transpose(turn)
    if picture.mode.startswith("I;16"):  # grey of 16 bits, or a microscope's 12
        white = 2**bits - 1
        values = np.asarray(picture)
        values = np.where(values == picture.info.get("transparency"), white, values)  # its transparent value, if any
        if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:  # a scanner's 0 may be white
            values = white - values
        return Image.fromarray(np.round(values / (white / 255)).astype(np.uint8))
    picture = picture.convert({"La": "LA", "LAB": "RGB"}.get(picture.mode, picture.mode))  # the only ways out of these
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture
