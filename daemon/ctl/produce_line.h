/* A line of a file -> a record of the interactions or items topic, checked by the rules that the daemon
 * applies. */
#ifndef M2SED_CTL_PRODUCE_LINE_H
#define M2SED_CTL_PRODUCE_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ingest/codec.h"

struct m2sed_line_codec {
  bool items;   /* else interactions */
  bool tsv;     /* else JSON; interactions only */
  bool now;     /* the event time is that of sending, whatever the line says */
  uint32_t dim; /* of items' rows; 0: any */
  /* private */
  struct m2se_arena arena;
  uint8_t *value;
  size_t capacity;
};

struct m2sed_line_record { /* good until the next conversion */
  const void *key, *value;
  size_t key_size, value_size;
};

int m2sed_line_codec_init(struct m2sed_line_codec *codec); /* the first four are set; 0 or M2SE_ENOMEM */
void m2sed_line_codec_free(struct m2sed_line_codec *codec);

/* line[size] is NUL; without the line's end; is overwritten. now_ms stands in for an event time that the line
 * lacks. M2SE_EFORMAT and the refusal, M2SE_ENOMEM. */
int m2sed_line_convert(struct m2sed_line_codec *codec, char *line, size_t size, int64_t now_ms,
                       struct m2sed_line_record *record, struct m2se_refusal *refusal);

#endif
