/* Feature rows of texts and pictures on disk, by content: the same text or picture is never computed twice.
 *
 * DESIGN. An item is a list of contents. A content (one text, one picture) is known by the SHA-256 of its
 * kind and bytes, and exists once however many items have it. It waits (its bytes are kept), has a row, or
 * was refused for good with a reason. A row remembers the model that made it: with another model it is
 * computed again once its item's record comes by, and the old row is given out until then. Items of which
 * anything waits are pending, the newest first; so the queue, retries and poison are in here too, and a
 * process that starts again goes on where the last one was. What no item has any more is removed.
 *
 * SHA-256, because contents come from strangers: with a faster digest one of them could make a text that
 * gets the rows of another.
 *
 * Kept by LMDB: all changes between two commits are there after a crash, or none. They are made in one
 * transaction that begins by itself. Any error throws it away: what was changed since the last commit is
 * undone, and the store can be used on.
 *
 * Thread: one at a time, the same from the first change until the commit. Views last until the next change,
 * commit or rollback. One process writes; others may read (`read_only`).
 */
#ifndef M2SED_STORE_H
#define M2SED_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/error.h"

enum {
  M2SED_DIGEST_BYTES = 32,
  M2SED_MODEL_BYTES = 16,
  M2SED_STORE_ID_MAX = 128,
  M2SED_STORE_CONTENTS_MAX = 512, /* of one item */
  M2SED_STORE_DIM_MAX = 4096,
  M2SED_STORE_REASON_MAX = 200, /* bytes of a reason that are kept */
};

/* Numbers are on disk. A path stands for a file as it looked: size, time of change and name. */
enum m2sed_content_kind {
  M2SED_CONTENT_TEXT,
  M2SED_CONTENT_PICTURE,
  M2SED_CONTENT_PATH,
  M2SED_CONTENT_KINDS
};
enum m2sed_content_state { M2SED_CONTENT_WAITS, M2SED_CONTENT_HAS_ROW, M2SED_CONTENT_REFUSED };

struct m2sed_content {
  enum m2sed_content_kind kind;
  const void *bytes; /* [size] */
  size_t size;
};

struct m2sed_store_options {
  const char *folder; /* exists */
  uint64_t bytes_max; /* of the file; it grows as needed */
  bool read_only;
  uint8_t models[M2SED_CONTENT_KINDS][M2SED_MODEL_BYTES]; /* what computes rows of each kind now */
};

struct m2sed_store_content {
  enum m2sed_content_kind kind;
  enum m2sed_content_state state;
  bool is_current; /* row or refusal of the present model; only what is not has to be computed */
  uint32_t attempts;
  int64_t not_before_ms; /* next attempt; 0: now */
  uint8_t digest[M2SED_DIGEST_BYTES];
  uint32_t dim;      /* of the row; 0: none */
  const void *row;   /* float32 [dim], unaligned: copy it */
  const void *bytes; /* [size] the content itself; NULL unless it has to be computed */
  size_t size;
  const char *reason; /* of a refusal, [reason_size] */
  size_t reason_size;
};

struct m2sed_store_item {
  char id[M2SED_STORE_ID_MAX + 1];
  uint64_t version;  /* of its record, as put_item was told */
  uint64_t sequence; /* larger is newer; 0: not pending */
  uint32_t waiting;  /* contents that have to be computed */
  uint32_t content_count;
  struct m2sed_store_content contents[M2SED_STORE_CONTENTS_MAX]; /* in the order of the item's record */
};

struct m2sed_store_counts {
  uint64_t items, pending, contents, waiting, refused;
  uint64_t bytes; /* of the file that are in use */
};

struct m2sed_store;

/* M2SE_EINVAL, M2SE_EMISSING (no folder; with read_only no store), M2SE_EFORMAT (another program's, damaged,
 * or of another machine), M2SE_EIO, M2SE_ENOMEM. The functions below: also M2SE_ELIMIT when bytes_max is
 * reached, and M2SE_EFORMAT. */
int m2sed_store_open(struct m2sed_store **store, const struct m2sed_store_options *options,
                     struct m2se_error *error);
void m2sed_store_close(struct m2sed_store *store); /* without a commit; NULL is allowed */

int m2sed_store_commit(struct m2sed_store *store, struct m2se_error *error);
void m2sed_store_rollback(struct m2sed_store *store);

/* What the store calls a content. */
void m2sed_store_digest(const struct m2sed_content *content, uint8_t digest[M2SED_DIGEST_BYTES]);

/* The item as its newest record has it. Returns how many of its contents have to be computed; 0: all is
 * known, the rows can be read at once, and the item is not pending. A record that says what is known already
 * changes nothing but the version. id: 1 to 128 bytes; count: at most M2SED_STORE_CONTENTS_MAX. */
int m2sed_store_put_item(struct m2sed_store *store, const char *id, uint64_t version,
                         const struct m2sed_content *contents, uint32_t count, struct m2se_error *error);
/* 0 also if there is none. */
int m2sed_store_delete_item(struct m2sed_store *store, const char *id, struct m2se_error *error);

/* 1: *item is filled in; 0: there is none. */
int m2sed_store_get_item(struct m2sed_store *store, const char *id, struct m2sed_store_item *item,
                         struct m2se_error *error);
/* The newest pending item that is older than *before (0: the newest of all), and sets *before to it. 1: *item
 * is filled in; when nothing of it waits any more, m2sed_store_finish_item takes it off. 0: no more. */
int m2sed_store_next_item(struct m2sed_store *store, uint64_t *before, struct m2sed_store_item *item,
                          struct m2se_error *error);
int m2sed_store_finish_item(struct m2sed_store *store, const char *id, struct m2se_error *error);

/* What came of a content. All of them return 0 also when no item has it any more. */
int m2sed_store_put_row(struct m2sed_store *store, const uint8_t digest[M2SED_DIGEST_BYTES], const float *row,
                        uint32_t dim, struct m2se_error *error);
int m2sed_store_refuse(struct m2sed_store *store, const uint8_t digest[M2SED_DIGEST_BYTES],
                       const char *reason, struct m2se_error *error);
/* It failed for a reason that may pass: one attempt more, the next not before that time. */
int m2sed_store_retry(struct m2sed_store *store, const uint8_t digest[M2SED_DIGEST_BYTES],
                      int64_t not_before_ms, struct m2se_error *error);

int m2sed_store_count(struct m2sed_store *store, struct m2sed_store_counts *counts, struct m2se_error *error);

/* Calls `visit` for the reason of every content that was refused; reason[size]. */
int m2sed_store_each_refusal(struct m2sed_store *store,
                             void (*visit)(void *context, const char *reason, size_t size), void *context,
                             struct m2se_error *error);

/* Reads all of it: every content that an item names is there as often as its count of references says, what
 * waits has its bytes, what is pending exists. M2SE_EFORMAT: what is wrong. */
int m2sed_store_check(struct m2sed_store *store, struct m2se_error *error);

#endif
