#include "daemon/features/kv.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <lmdb.h>

struct m2sed_kv {
  MDB_env *environment;
  MDB_txn *transaction; /* NULL: none has begun */
  MDB_dbi tables[M2SED_KV_TABLES_MAX];
  uint32_t count;
  bool read_only;
};

static int code_of(int status) {
  switch (status) {
  case MDB_MAP_FULL:
    return M2SE_ELIMIT;
  case ENOMEM:
    return M2SE_ENOMEM;
  case ENOENT:
  case MDB_NOTFOUND:
    return M2SE_EMISSING;
  case MDB_CORRUPTED:
  case MDB_PAGE_NOTFOUND:
  case MDB_INVALID:
  case MDB_VERSION_MISMATCH:
  case MDB_INCOMPATIBLE:
    return M2SE_EFORMAT;
  default:
    return M2SE_EIO;
  }
}

/* Ends the transaction: after an error LMDB allows nothing else. */
static int fail(struct m2sed_kv *kv, int status, const char *what, struct m2se_error *error) {
  m2sed_kv_rollback(kv);
  return m2se_error_set(error, code_of(status), "store: %s: %s", what, mdb_strerror(status));
}

static int begin(struct m2sed_kv *kv, struct m2se_error *error) {
  if (kv->transaction) {
    return 0;
  }
  int status = mdb_txn_begin(kv->environment, NULL, kv->read_only ? MDB_RDONLY : 0, &kv->transaction);
  if (status != 0) {
    kv->transaction = NULL;
    return fail(kv, status, "begin", error);
  }
  return 0;
}

static int open_tables(struct m2sed_kv *kv, const char *const *names, struct m2se_error *error) {
  int code = begin(kv, error);
  for (uint32_t i = 0; i < kv->count && code == 0; i++) {
    int status = mdb_dbi_open(kv->transaction, names[i], kv->read_only ? 0 : MDB_CREATE, &kv->tables[i]);
    code = status ? fail(kv, status, names[i], error) : 0;
  }
  return code ? code : m2sed_kv_commit(kv, error);
}

int m2sed_kv_open(struct m2sed_kv **out, const char *folder, uint64_t bytes_max, bool read_only,
                  const char *const *names, uint32_t count, struct m2se_error *error) {
  assert(count <= M2SED_KV_TABLES_MAX);
  *out = NULL;
  struct m2sed_kv *kv = calloc(1, sizeof *kv);
  if (!kv) {
    return m2se_error_set(error, M2SE_ENOMEM, "store: out of memory");
  }
  kv->count = count;
  kv->read_only = read_only;
  int status = mdb_env_create(&kv->environment);
  status = status ? status : mdb_env_set_maxdbs(kv->environment, count);
  status = status ? status : mdb_env_set_mapsize(kv->environment, bytes_max);
  /* No read-ahead: rows are read here and there. */
  status = status ? status
                  : mdb_env_open(kv->environment, folder, MDB_NORDAHEAD | (read_only ? MDB_RDONLY : 0), 0600);
  int dead;
  status = status ? status : mdb_reader_check(kv->environment, &dead); /* readers that were killed */
  int code = status ? fail(kv, status, folder, error) : open_tables(kv, names, error);
  if (code != 0) {
    m2sed_kv_close(kv);
    return code;
  }
  *out = kv;
  return 0;
}

void m2sed_kv_close(struct m2sed_kv *kv) {
  if (kv) {
    m2sed_kv_rollback(kv);
    if (kv->environment) {
      mdb_env_close(kv->environment);
    }
    free(kv);
  }
}

int m2sed_kv_commit(struct m2sed_kv *kv, struct m2se_error *error) {
  if (!kv->transaction) {
    return 0;
  }
  int status = mdb_txn_commit(kv->transaction);
  kv->transaction = NULL; /* gone, whatever became of it */
  return status ? fail(kv, status, "commit", error) : 0;
}

void m2sed_kv_rollback(struct m2sed_kv *kv) {
  if (kv->transaction) {
    mdb_txn_abort(kv->transaction);
    kv->transaction = NULL;
  }
}

static MDB_val value_of(struct m2sed_span span) {
  return (MDB_val){span.size, (void *)span.data};
}

int m2sed_kv_get(struct m2sed_kv *kv, uint32_t table, struct m2sed_span key, struct m2sed_span *value,
                 struct m2se_error *error) {
  assert(table < kv->count && key.size >= 1 && key.size <= M2SED_KV_KEY_MAX);
  int code = begin(kv, error);
  if (code != 0) {
    return code;
  }
  MDB_val k = value_of(key), v;
  int status = mdb_get(kv->transaction, kv->tables[table], &k, &v);
  if (status == MDB_NOTFOUND) {
    return 0;
  }
  if (status != 0) {
    return fail(kv, status, "get", error);
  }
  *value = (struct m2sed_span){v.mv_data, v.mv_size};
  return 1;
}

int m2sed_kv_from(struct m2sed_kv *kv, uint32_t table, struct m2sed_span *key, struct m2sed_span *value,
                  struct m2se_error *error) {
  assert(table < kv->count && key->size >= 1 && key->size <= M2SED_KV_KEY_MAX);
  int code = begin(kv, error);
  if (code != 0) {
    return code;
  }
  MDB_cursor *cursor;
  int status = mdb_cursor_open(kv->transaction, kv->tables[table], &cursor);
  if (status != 0) {
    return fail(kv, status, "cursor", error);
  }
  MDB_val k = value_of(*key), v;
  status = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
  mdb_cursor_close(cursor);
  if (status == MDB_NOTFOUND) {
    return 0;
  }
  if (status != 0) {
    return fail(kv, status, "search", error);
  }
  *key = (struct m2sed_span){k.mv_data, k.mv_size};
  *value = (struct m2sed_span){v.mv_data, v.mv_size};
  return 1;
}

int m2sed_kv_put(struct m2sed_kv *kv, uint32_t table, struct m2sed_span key, struct m2sed_span value,
                 struct m2se_error *error) {
  assert(table < kv->count && key.size >= 1 && key.size <= M2SED_KV_KEY_MAX && !kv->read_only);
  int code = begin(kv, error);
  if (code != 0) {
    return code;
  }
  MDB_val k = value_of(key), v = value_of(value);
  int status = mdb_put(kv->transaction, kv->tables[table], &k, &v, 0);
  return status ? fail(kv, status, "put", error) : 0;
}

int m2sed_kv_delete(struct m2sed_kv *kv, uint32_t table, struct m2sed_span key, struct m2se_error *error) {
  assert(table < kv->count && key.size >= 1 && key.size <= M2SED_KV_KEY_MAX && !kv->read_only);
  int code = begin(kv, error);
  if (code != 0) {
    return code;
  }
  MDB_val k = value_of(key);
  int status = mdb_del(kv->transaction, kv->tables[table], &k, NULL);
  return status && status != MDB_NOTFOUND ? fail(kv, status, "delete", error) : 0;
}

int m2sed_kv_entries(struct m2sed_kv *kv, uint32_t table, uint64_t *count, struct m2se_error *error) {
  assert(table < kv->count);
  int code = begin(kv, error);
  if (code != 0) {
    return code;
  }
  MDB_stat about;
  int status = mdb_stat(kv->transaction, kv->tables[table], &about);
  *count = status ? 0 : about.ms_entries;
  return status ? fail(kv, status, "stat", error) : 0;
}

uint64_t m2sed_kv_bytes(const struct m2sed_kv *kv) {
  MDB_envinfo about;
  MDB_stat pages;
  if (mdb_env_info(kv->environment, &about) != 0 || mdb_env_stat(kv->environment, &pages) != 0) {
    return 0;
  }
  return (about.me_last_pgno + 1) * pages.ms_psize;
}
