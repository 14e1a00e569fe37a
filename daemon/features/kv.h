/* Named tables of keys and values in one file, kept whole whatever happens: the door to LMDB.
 *
 * A transaction begins with the first call and ends with commit or rollback. An error other than "not there"
 * rolls it back. Views last until the next change, commit or rollback. One thread at a time, the same within
 * a transaction; one writer at a time among all processes.
 */
#ifndef M2SED_KV_H
#define M2SED_KV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/error.h"

enum { M2SED_KV_TABLES_MAX = 8, M2SED_KV_KEY_MAX = 511 };

struct m2sed_span {
  const void *data;
  size_t size;
};

struct m2sed_kv;

/* names: of the tables, made if they are not there; they are numbered in this order. */
int m2sed_kv_open(struct m2sed_kv **kv, const char *folder, uint64_t bytes_max, bool read_only,
                  const char *const *names, uint32_t count, struct m2se_error *error);
void m2sed_kv_close(struct m2sed_kv *kv); /* without a commit; NULL is allowed */
int m2sed_kv_commit(struct m2sed_kv *kv, struct m2se_error *error);
void m2sed_kv_rollback(struct m2sed_kv *kv);

/* key: 1 to M2SED_KV_KEY_MAX bytes. 1: found, 0: none. _from: the first entry whose key is no less than *key,
 * which becomes its key (a view). */
int m2sed_kv_get(struct m2sed_kv *kv, uint32_t table, struct m2sed_span key, struct m2sed_span *value,
                 struct m2se_error *error);
int m2sed_kv_from(struct m2sed_kv *kv, uint32_t table, struct m2sed_span *key, struct m2sed_span *value,
                  struct m2se_error *error);
int m2sed_kv_put(struct m2sed_kv *kv, uint32_t table, struct m2sed_span key, struct m2sed_span value,
                 struct m2se_error *error);
int m2sed_kv_delete(struct m2sed_kv *kv, uint32_t table, struct m2sed_span key, struct m2se_error *error);

int m2sed_kv_entries(struct m2sed_kv *kv, uint32_t table, uint64_t *count, struct m2se_error *error);
uint64_t m2sed_kv_bytes(const struct m2sed_kv *kv); /* up to the last page that is or was in use */

#endif
