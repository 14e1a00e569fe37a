#include "daemon/pictures/decode.h"

#include <assert.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <png.h>
#include <zlib.h>

enum { CHUNK_FRAME = 12 /* length, name, checksum */, SIGNATURE = 8 };

static uint32_t read_32(const uint8_t *at) {
  return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* How large the colour profile is, unpacked; no more than M2SED_DECODE_METADATA_MAX of it is. */
static size_t profile_size(const uint8_t *chunk, size_t size) {
  const uint8_t *end = memchr(chunk, '\0', size); /* of its name; then the method, then deflate */
  z_stream stream = {0};
  if (!end || (size_t)(end + 2 - chunk) > size || inflateInit(&stream) != Z_OK) {
    return 0;
  }
  uint8_t unpacked[16384];
  size_t total = 0;
  stream.next_in = (uint8_t *)end + 2;
  stream.avail_in = (unsigned)(chunk + size - (end + 2));
  int status = Z_OK;
  while (status == Z_OK && total <= M2SED_DECODE_METADATA_MAX) {
    stream.next_out = unpacked;
    stream.avail_out = sizeof unpacked;
    status = inflate(&stream, Z_NO_FLUSH);
    total += sizeof unpacked - stream.avail_out;
  }
  inflateEnd(&stream);
  return total;
}

/* Looks at the frames of all chunks, takes size and orientation out of theirs, and refuses what is cut off or
 * out of proportion before libpng sees any of it. */
static bool walk_chunks(struct m2sed_decode *decode) {
  size_t at = SIGNATURE, metadata = 0;
  for (uint32_t count = 0; count < M2SED_DECODE_CHUNKS_MAX; count++) {
    const uint8_t *chunk = decode->bytes + at;
    size_t left = decode->size - at;
    if (left < CHUNK_FRAME || read_32(chunk) > left - CHUNK_FRAME) {
      m2sed_decode_refuse(decode, M2SED_PICTURE_DAMAGED, "PNG: a chunk ends behind the file's end");
      return false;
    }
    uint32_t size = read_32(chunk);
    const uint8_t *name = chunk + 4, *content = chunk + 8;
    if (count == 0) {
      if (memcmp(name, "IHDR", 4) != 0 || size != 13) {
        m2sed_decode_refuse(decode, M2SED_PICTURE_DAMAGED, "PNG: it does not begin with IHDR");
        return false;
      }
      if (!m2sed_decode_size(decode, read_32(content), read_32(content + 4), 3)) {
        return false;
      }
    } else if (memcmp(name, "IEND", 4) == 0) {
      return true;
    } else if (memcmp(name, "IDAT", 4) != 0) {
      metadata += size;
    }
    if (memcmp(name, "iCCP", 4) == 0) {
      metadata += profile_size(content, size);
    } else if (memcmp(name, "eXIf", 4) == 0) {
      decode->orientation = m2sed_decode_orientation(content, size);
    }
    if (metadata > M2SED_DECODE_METADATA_MAX) {
      m2sed_decode_refuse(decode, M2SED_PICTURE_TOO_COMPLEX, "PNG: metadata of more than %d bytes",
                          M2SED_DECODE_METADATA_MAX);
      return false;
    }
    at += CHUNK_FRAME + size;
  }
  m2sed_decode_refuse(decode, M2SED_PICTURE_TOO_COMPLEX, "PNG: more than %d chunks", M2SED_DECODE_CHUNKS_MAX);
  return false;
}

struct png_work {
  struct m2sed_decode *decode;
  png_structp png;
  png_infop info;
  size_t at;
  uint8_t *memory; /* a row, or the whole picture */
  bool interlaced;
};

static _Noreturn void fail(png_structp png, png_const_charp text) {
  struct png_work *work = png_get_error_ptr(png);
  bool memory = strstr(text, "memory") != NULL; /* libpng has no codes */
  m2sed_decode_refuse(work->decode, memory ? M2SED_PICTURE_TOO_MUCH_MEMORY : M2SED_PICTURE_DAMAGED,
                      "PNG: %.100s", text);
  png_longjmp(png, 1);
}

static void warn(png_structp png, png_const_charp text) {
  (void)png;
  (void)text;
}

static void read_bytes(png_structp png, png_bytep to, size_t size) {
  struct png_work *work = png_get_io_ptr(png);
  if (size > work->decode->size - work->at) {
    png_error(png, "the file ends too early");
  }
  memcpy(to, work->decode->bytes + work->at, size);
  work->at += size;
}

static void read_header(struct png_work *work) {
  png_structp png = work->png;
  struct m2sed_decode *decode = work->decode;
  png_set_read_fn(png, work, read_bytes);
  png_set_user_limits(png, M2SED_DECODE_SIDE_MAX, M2SED_DECODE_SIDE_MAX);
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, -1); /* only what makes pixels is read */
  png_read_info(png, work->info);
  png_set_strip_16(png);
  png_set_expand(png); /* palettes, fewer than 8 bits, a transparent colour */
  png_set_gray_to_rgb(png);
  work->interlaced = png_set_interlace_handling(png) > 1;
  png_read_update_info(png, work->info);
  decode->channels = png_get_channels(png, work->info);
  assert(png_get_image_width(png, work->info) == decode->width);
  assert(png_get_image_height(png, work->info) == decode->height);
  assert(png_get_bit_depth(png, work->info) == 8 && (decode->channels == 3 || decode->channels == 4));
}

static void read_picture(struct png_work *work) {
  struct m2sed_decode *decode = work->decode;
  if (setjmp(png_jmpbuf(work->png))) {
    return;
  }
  read_header(work);
  size_t line = (size_t)decode->width * decode->channels;
  if (!work->interlaced) {
    work->memory = png_malloc(work->png, line);
    for (uint32_t y = 0; y < decode->height; y++) {
      png_read_row(work->png, work->memory, NULL);
      m2sed_decode_row(decode, y, work->memory);
    }
    return;
  }
  work->memory = m2sed_decode_whole(decode);
  for (int pass = 0; work->memory && pass < PNG_INTERLACE_ADAM7_PASSES; pass++) {
    for (uint32_t y = 0; y < decode->height; y++) {
      png_read_row(work->png, work->memory + y * line, NULL);
    }
  }
}

void m2sed_decode_png(struct m2sed_decode *decode) {
  if (!walk_chunks(decode)) {
    return;
  }
  struct png_work work = {.decode = decode};
  work.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &work, fail, warn);
  work.info = work.png ? png_create_info_struct(work.png) : NULL;
  if (!work.info) {
    m2sed_decode_refuse(decode, M2SED_PICTURE_TOO_MUCH_MEMORY, "PNG: no memory to begin");
  } else {
    read_picture(&work);
  }
  if (!work.interlaced) {
    png_free(work.png, work.memory);
  } else if (decode->reason == M2SED_PICTURE_OK) {
    m2sed_decode_whole_place(decode, work.memory);
  } else {
    m2sed_decode_whole_free(decode, work.memory);
  }
  png_destroy_read_struct(&work.png, &work.info, NULL);
}
