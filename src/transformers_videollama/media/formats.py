"""The formats that FFmpeg may open: what people have, and nothing that leads elsewhere.

FFmpeg knows some 370. Playlists, image sequences, network and device inputs are not listed, as their files name other
files or addresses, which nobody has checked; nor are subtitles, text, picture files (Pillow opens those), raw samples
of which nobody has said how they are to be read, nor the formats of single games.
"""

__all__ = ["FORMATS"]

_CONTAINERS = (
    "apng asf asf_o avi dhav dv flv gif gxf ivf ivr kux live_flv lxf matroska mov mpeg mpegts mpjpeg mxf nsv nut nuv "
    "ogg pva rm smjpeg ty wtv yuv4mpegpipe"
)
_RAW_VIDEO = (
    "apv av1 avs2 avs3 cavsvideo dirac dnxhd evc h261 h263 h264 hevc jpegxl_anim jpegxl_pipe m4v mjpeg mjpeg_2000 "
    "mpegvideo obu vc1 vc1test vvc"
)
_SOUND = (
    "aac ac3 aiff amr amrnb amrwb ape au caf dsf dts dtshd eac3 flac g722 g723_1 g726 g729 gsm iamf ilbc ircam loas "
    "mlp mp3 mpc mpc8 nistsphere oma qcp qoa sbc shn sox spdif tak truehd tta voc vqf w64 wav wv xwma"
)
FORMATS = tuple(f"{_CONTAINERS} {_RAW_VIDEO} {_SOUND}".split())
