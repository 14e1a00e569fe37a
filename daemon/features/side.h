/* The side thread: texts and pictures of new items become rows, beside everything else.
 *
 * DESIGN. The loop offers each record of the items topic that has texts or pictures; results come back in any
 * order, each with the version (offset) of the record it is for, so that the loop can leave out those of
 * records that a newer one has replaced. All progress is in the store (store.h): what waits there needs no
 * memory, and an item that was done in an earlier life comes back at once when its record is offered again.
 *
 * A turn takes what was offered, commits it, and computes one mini-batch of texts or one picture, of the
 * newest items first. A text whose mini-batch fails is tried alone, later again, then refused with its
 * reason; a picture that is no good is refused at once. An item has a result once nothing of it waits, with
 * the rows there are; while another model's rows are computed again, the old ones are its result.
 *
 * The thread has a lower priority (nice) and computes with one thread.
 */
#ifndef M2SED_SIDE_H
#define M2SED_SIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/features/store.h"
#include "daemon/pictures/pictures.h"
#include "daemon/ring.h"
#include "ingest/codec.h"

enum {
  M2SED_SIDE_TEXTS_MAX = 32, /* of a mini-batch */
  M2SED_SIDE_ATTEMPTS_MAX = 3,
};

struct m2sed_embed_text {
  const char *data; /* [size] UTF-8 */
  size_t size;
};

/* What computes rows; called by the side thread only. 0, or an error: none of the rows is there. */
struct m2sed_embedder {
  void *self;
  uint32_t dim;
  int (*texts)(void *self, const struct m2sed_embed_text *texts, uint32_t count,
               float *rows /* [count, dim] */, struct m2se_error *error);
  /* NULL: no image model; items are text only */
  int (*picture)(void *self, const struct m2sed_picture *picture, float *row /* [dim] */,
                 struct m2se_error *error);
};

struct m2sed_side_settings {
  struct m2sed_store_options store;
  struct m2sed_pictures_options pictures;
  const char *image_root; /* "": paths are refused */
  int nice;               /* 0..19, of the thread and the helper */
  uint32_t records_max;   /* offered and not taken yet */
  uint64_t bytes_max;     /* of those records; one is always taken */
  uint32_t retry_ms;      /* before the second attempt; four times that before the third */
};

/* A record as it is offered: id, version and copies of its texts and pictures. */
struct m2sed_side_record;
/* NULL: out of memory. */
struct m2sed_side_record *m2sed_side_record_new(const struct m2se_item *item, uint64_t version);
struct m2sed_side_record *m2sed_side_record_deletion(const char *id, uint64_t version);
void m2sed_side_record_free(struct m2sed_side_record *record);

struct m2sed_side_result {
  uint64_t version;
  bool is_old;                           /* rows of another model, until those of the present one are there */
  uint32_t dim, text_count, image_count; /* rows; of texts and pictures that were not refused */
  uint32_t refused;                      /* texts and pictures */
  char id[M2SED_STORE_ID_MAX + 1];
  float rows[]; /* [text_count + image_count, dim], in the order of the record */
};

struct m2sed_side_counters {
  uint64_t records, texts, pictures, results; /* taken, computed, computed, given */
  uint64_t retries, refused;                  /* attempts that failed and are repeated; contents given up */
  uint64_t store_errors, helper_errors;
  struct m2sed_store_counts store;
  struct m2sed_pictures_counters decoded;
  char problem[256]; /* what keeps it from working at present; "": nothing */
};

struct m2sed_side;

/* Opens the store. embedder stays the caller's. */
int m2sed_side_new(struct m2sed_side **side, const struct m2sed_side_settings *settings,
                   const struct m2sed_embedder *embedder, struct m2se_error *error);
/* Before start. room: an offer was refused, and there is room again; result: there is one to take. They are
 * called by the side thread. */
void m2sed_side_notify(struct m2sed_side *side, struct m2sed_notify room, struct m2sed_notify result);
int m2sed_side_start(struct m2sed_side *side, struct m2se_error *error);
/* Takes the record over. False: no room, the record is still the caller's. The loop. */
bool m2sed_side_offer(struct m2sed_side *side, struct m2sed_side_record *record);
/* The oldest result (free), or NULL. The loop. */
struct m2sed_side_result *m2sed_side_take(struct m2sed_side *side);
/* Ends the thread once the mini-batch or picture in work is done; nothing is lost. Not started: returns. */
void m2sed_side_stop(struct m2sed_side *side);
void m2sed_side_free(struct m2sed_side *side);                        /* after stop; NULL is allowed */
struct m2sed_side_counters m2sed_side_count(struct m2sed_side *side); /* of the last turn. Any thread */

#endif
