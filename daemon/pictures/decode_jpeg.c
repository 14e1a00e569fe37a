#include "daemon/pictures/decode.h"

#include <assert.h>
#include <setjmp.h>
#include <stdio.h> /* jpeglib.h wants it */
#include <stdlib.h>
#include <string.h>

#include <jerror.h>
#include <jpeglib.h>

struct jpeg_work {
  struct jpeg_decompress_struct jpeg;
  struct jpeg_error_mgr errors;
  struct jpeg_progress_mgr progress;
  jmp_buf failed;
  struct m2sed_decode *decode;
  uint8_t *row; /* [width * 4] */
};

static enum m2sed_picture_reason reason_of(int code) {
  switch (code) {
  case JERR_OUT_OF_MEMORY:
    return M2SED_PICTURE_TOO_MUCH_MEMORY;
  case JERR_IMAGE_TOO_BIG:
    return M2SED_PICTURE_TOO_MANY_PIXELS;
  case JERR_ARITH_NOTIMPL:
  case JERR_BAD_PRECISION:
  case JERR_CONVERSION_NOTIMPL:
  case JERR_SOF_UNSUPPORTED:
    return M2SED_PICTURE_UNSUPPORTED;
  default:
    return M2SED_PICTURE_DAMAGED;
  }
}

static _Noreturn void fail(j_common_ptr jpeg) {
  struct jpeg_work *work = jpeg->client_data;
  char text[JMSG_LENGTH_MAX];
  jpeg->err->format_message(jpeg, text);
  m2sed_decode_refuse(work->decode, reason_of(jpeg->err->msg_code), "JPEG: %.100s", text);
  longjmp(work->failed, 1);
}

/* Other warnings leave a picture that is worth having. */
static void warn(j_common_ptr jpeg, int level) {
  if (level < 0 && jpeg->err->msg_code == JWRN_JPEG_EOF) {
    fail(jpeg);
  }
}

/* A scan of a few bytes costs a pass over the whole picture. */
static void count_scans(j_common_ptr common) {
  struct jpeg_work *work = common->client_data;
  if (work->jpeg.input_scan_number > M2SED_DECODE_SCANS_MAX) {
    m2sed_decode_refuse(work->decode, M2SED_PICTURE_TOO_COMPLEX, "JPEG: more than %d scans",
                        M2SED_DECODE_SCANS_MAX);
    longjmp(work->failed, 1);
  }
}

/* Looks at the segments before the first scan and takes the orientation out of its own. What does not look
 * like a segment is left to libjpeg. */
static bool walk_segments(struct m2sed_decode *decode) {
  enum { START_OF_SCAN = 0xda, APP0 = 0xe0, APP1 = 0xe1, APP15 = 0xef, COMMENT = 0xfe };
  size_t at = 2, metadata = 0;
  bool oriented = false;
  for (uint32_t count = 0; decode->size - at >= 4 && decode->bytes[at] == 0xff; count++) {
    const uint8_t *segment = decode->bytes + at;
    uint32_t marker = segment[1], size = (uint32_t)segment[2] << 8 | segment[3];
    if (marker == START_OF_SCAN || size < 2 || size > decode->size - at - 2) {
      break;
    }
    if ((marker >= APP0 && marker <= APP15) || marker == COMMENT) {
      metadata += size;
    }
    if (marker == APP1 && !oriented && size >= 8 && memcmp(segment + 4, "Exif\0\0", 6) == 0) {
      decode->orientation = m2sed_decode_orientation(segment + 4, size - 2);
      oriented = true;
    }
    if (metadata > M2SED_DECODE_METADATA_MAX || count >= M2SED_DECODE_CHUNKS_MAX) {
      m2sed_decode_refuse(decode, M2SED_PICTURE_TOO_COMPLEX, "JPEG: more segments or metadata than allowed");
      return false;
    }
    at += 2 + size;
  }
  return true;
}

/* In place, from 4 bytes a pixel to 3. Adobe stores CMYK inverted, and all others followed. */
static void rgb_of_cmyk(uint8_t *row, uint32_t width) {
  for (uint32_t x = 0; x < width; x++) {
    uint32_t white = row[4 * x + 3];
    for (uint32_t c = 0; c < 3; c++) {
      uint32_t product = (255U - row[4 * x + c]) * white + 128;
      row[3 * x + c] = (uint8_t)(white - ((product + (product >> 8)) >> 8));
    }
  }
}

static void read_picture(struct jpeg_work *work) {
  struct jpeg_decompress_struct *jpeg = &work->jpeg;
  struct m2sed_decode *decode = work->decode;
  if (setjmp(work->failed)) {
    return;
  }
  jpeg_create_decompress(jpeg);
  jpeg->progress = &work->progress;
  jpeg_mem_src(jpeg, decode->bytes, decode->size);
  jpeg_read_header(jpeg, TRUE);
  if (!m2sed_decode_size(decode, jpeg->image_width, jpeg->image_height, 3)) {
    return;
  }
  bool is_cmyk = jpeg->jpeg_color_space == JCS_CMYK || jpeg->jpeg_color_space == JCS_YCCK;
  jpeg->out_color_space = is_cmyk ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(jpeg);
  assert(jpeg->output_width == decode->width && jpeg->output_components == (is_cmyk ? 4 : 3));
  work->row = malloc((size_t)4 * decode->width);
  if (!work->row) {
    m2sed_decode_refuse(decode, M2SED_PICTURE_TOO_MUCH_MEMORY, "JPEG: no memory for a row");
    return;
  }
  while (jpeg->output_scanline < jpeg->output_height) {
    uint32_t y = jpeg->output_scanline;
    jpeg_read_scanlines(jpeg, &work->row, 1);
    if (is_cmyk) {
      rgb_of_cmyk(work->row, decode->width);
    }
    m2sed_decode_row(decode, y, work->row);
  }
}

void m2sed_decode_jpeg(struct m2sed_decode *decode) {
  if (!walk_segments(decode)) {
    return;
  }
  struct jpeg_work work = {.decode = decode};
  work.jpeg.err = jpeg_std_error(&work.errors);
  work.jpeg.client_data = &work;
  work.errors.error_exit = fail;
  work.errors.emit_message = warn;
  work.progress.progress_monitor = count_scans;
  read_picture(&work);
  free(work.row);
  jpeg_destroy_decompress(&work.jpeg);
}
