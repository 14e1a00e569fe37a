#include "daemon/pictures/decode.h"

#include <string.h>

#include <webp/decode.h>

static uint32_t read_32(const uint8_t *at) {
  return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* Looks at the frames of all chunks and takes the orientation out of its own. */
static bool walk_chunks(struct m2sed_decode *decode) {
  enum { RIFF_FRAME = 8, CHUNK_FRAME = 8, FIRST = 12 };
  uint64_t end = (uint64_t)RIFF_FRAME + read_32(decode->bytes + 4);
  if (end > decode->size) {
    m2sed_decode_refuse(decode, M2SED_PICTURE_DAMAGED, "WebP: it is longer than the file");
    return false;
  }
  uint64_t at = FIRST, metadata = 0;
  for (uint32_t count = 0; at + CHUNK_FRAME <= end; count++) {
    const uint8_t *chunk = decode->bytes + at;
    uint64_t size = read_32(chunk + 4);
    if (size > end - at - CHUNK_FRAME) {
      m2sed_decode_refuse(decode, M2SED_PICTURE_DAMAGED, "WebP: a chunk ends behind the file's end");
      return false;
    }
    if (memcmp(chunk, "VP8", 3) != 0 && memcmp(chunk, "ALPH", 4) != 0) {
      metadata += size;
    }
    if (memcmp(chunk, "EXIF", 4) == 0) {
      decode->orientation = m2sed_decode_orientation(chunk + CHUNK_FRAME, size);
    }
    if (metadata > M2SED_DECODE_METADATA_MAX || count >= M2SED_DECODE_CHUNKS_MAX) {
      m2sed_decode_refuse(decode, M2SED_PICTURE_TOO_COMPLEX, "WebP: more chunks or metadata than allowed");
      return false;
    }
    at += CHUNK_FRAME + size + (size & 1);
  }
  return true;
}

static void refuse(struct m2sed_decode *decode, VP8StatusCode status) {
  switch (status) {
  case VP8_STATUS_OUT_OF_MEMORY:
    m2sed_decode_refuse(decode, M2SED_PICTURE_TOO_MUCH_MEMORY, "WebP: out of memory");
    return;
  case VP8_STATUS_UNSUPPORTED_FEATURE:
    m2sed_decode_refuse(decode, M2SED_PICTURE_UNSUPPORTED, "WebP: unsupported");
    return;
  default:
    m2sed_decode_refuse(decode, M2SED_PICTURE_DAMAGED, "WebP: libwebp's status %d", (int)status);
  }
}

void m2sed_decode_webp(struct m2sed_decode *decode) {
  WebPDecoderConfig config;
  VP8StatusCode status;
  if (!WebPInitDecoderConfig(&config)) {
    m2sed_decode_refuse(decode, M2SED_PICTURE_UNSUPPORTED, "WebP: another version of libwebp");
    return;
  }
  status = WebPGetFeatures(decode->bytes, decode->size, &config.input);
  if (status != VP8_STATUS_OK) {
    refuse(decode, status);
    return;
  }
  bool has_alpha = config.input.has_alpha;
  if (!m2sed_decode_size(decode, (uint64_t)config.input.width, (uint64_t)config.input.height,
                         has_alpha ? 4 : 3) ||
      !walk_chunks(decode)) {
    return;
  }
  if (config.input.has_animation) {
    m2sed_decode_refuse(decode, M2SED_PICTURE_UNSUPPORTED, "WebP: an animation");
    return;
  }
  uint8_t *whole = m2sed_decode_whole(decode);
  if (!whole) {
    return;
  }
  config.output.colorspace = has_alpha ? MODE_RGBA : MODE_RGB;
  config.output.is_external_memory = 1;
  config.output.u.RGBA.rgba = whole;
  config.output.u.RGBA.stride = (int)(decode->width * decode->channels);
  config.output.u.RGBA.size = (size_t)decode->width * decode->height * decode->channels;
  status = WebPDecode(decode->bytes, decode->size, &config);
  if (status == VP8_STATUS_OK) {
    m2sed_decode_whole_place(decode, whole);
  } else {
    refuse(decode, status);
    m2sed_decode_whole_free(decode, whole);
  }
  WebPFreeDecBuffer(&config.output);
}
