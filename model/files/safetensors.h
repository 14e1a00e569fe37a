/* safetensors files: named tensors and a few strings, as Python's safetensors reads and writes them.
 *
 * The file is 8 bytes of header length (little-endian), that many bytes of JSON, and the data part, which the
 * tensors cover without holes or overlaps, row-major, little-endian. The JSON:
 *
 *     {"__metadata__": {"key": "text"}, "NAME": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
 *
 * DESIGN. The reader checks every rule of the format before it gives out anything, because the files may come
 * from strangers; what it gives out are views into a read-only map (nothing is copied, files of many GB are
 * fine). The writer runs the reader's own checks over the header it made before the first byte goes out, so
 * the rules are written once.
 *
 * Errors name the file, the tensor and the rule, as codes of model/error.h: M2SE_EIO the file system,
 * M2SE_EFORMAT a rule of the format, M2SE_ELIMIT a limit of ours, M2SE_EMISSING no such tensor, M2SE_ETYPE,
 * M2SE_ESHAPE, M2SE_ERANGE not the dtype, shape or range asked for, M2SE_ENOMEM.
 *
 * Thread: an open file may be read by several threads. All of it blocks on the disk: not for the loop thread.
 */
#ifndef M2SE_SAFETENSORS_H
#define M2SE_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/error.h"
#include "model/files/json.h"

/* X(name in the file, bytes an element). Packed types of less than a byte are not taken. */
#define M2SE_DTYPES(X)                                                                                       \
  X(BOOL, 1)                                                                                                 \
  X(U8, 1)                                                                                                   \
  X(I8, 1)                                                                                                   \
  X(F8_E5M2, 1)                                                                                              \
  X(F8_E4M3, 1)                                                                                              \
  X(F8_E8M0, 1)                                                                                              \
  X(I16, 2)                                                                                                  \
  X(U16, 2)                                                                                                  \
  X(F16, 2)                                                                                                  \
  X(BF16, 2)                                                                                                 \
  X(I32, 4)                                                                                                  \
  X(U32, 4)                                                                                                  \
  X(F32, 4)                                                                                                  \
  X(C64, 8)                                                                                                  \
  X(F64, 8)                                                                                                  \
  X(I64, 8)                                                                                                  \
  X(U64, 8)

enum m2se_dtype {
#define M2SE_DTYPE_ENUM(name, size) M2SE_##name,
  M2SE_DTYPES(M2SE_DTYPE_ENUM)
#undef M2SE_DTYPE_ENUM
};

#define M2SE_TENSOR_RANK_MAX 8
#define M2SE_TENSOR_NAME_MAX 200 /* bytes; an error's text must have room for it */
#define M2SE_TENSORS_MAX 65536
#define M2SE_HEADER_BYTES_MAX (16u << 20)
#define M2SE_ANY UINT64_MAX /* in an expected shape: any size will do */

const char *m2se_dtype_name(enum m2se_dtype dtype);
size_t m2se_dtype_size(enum m2se_dtype dtype); /* bytes an element */

/* One tensor, read or to be written. Rank 0 is a scalar: one element. */
struct m2se_tensor {
  const char *name;
  enum m2se_dtype dtype;
  uint32_t rank;
  uint64_t shape[M2SE_TENSOR_RANK_MAX];
  const void *data; /* NOT aligned in foreign files; may be NULL if there are no elements */
  /* Filled by the reader, ignored by the writer: */
  uint64_t count;  /* elements */
  size_t bytes;    /* of data */
  uint64_t offset; /* of data within the data part */
};

/* ---- Reading ---- */

struct m2se_safetensors;

/* Opens, maps and checks a regular file. *file is for m2se_safetensors_close; NULL on failure. The file must
 * not shrink while it is open (the system would kill the process): files are replaced by rename, never cut.
 */
int m2se_safetensors_open(struct m2se_safetensors **file, const char *path, struct m2se_error *error);
/* The same from memory; `bytes` stays the caller's, outlives *file, and needs no alignment. label: the name
 * in errors. */
int m2se_safetensors_from_memory(struct m2se_safetensors **file, const void *bytes, size_t size,
                                 const char *label, struct m2se_error *error);
void m2se_safetensors_close(struct m2se_safetensors *file); /* all that it gave out ends; NULL: nothing */

/* The name of the file in errors: the end of a long path. Borrowed until close. */
const char *m2se_safetensors_label(const struct m2se_safetensors *file);

/* Tensors in the order of their data. Borrowed until close. */
uint32_t m2se_safetensors_count(const struct m2se_safetensors *file);
const struct m2se_tensor *m2se_safetensors_at(const struct m2se_safetensors *file, uint32_t index);
const struct m2se_tensor *m2se_safetensors_find(const struct m2se_safetensors *file,
                                                const char *name); /* or NULL */
/* find, and the shape must be shape[0..rank), where M2SE_ANY takes any size. M2SE_EMISSING, M2SE_ESHAPE. */
int m2se_safetensors_require(const struct m2se_safetensors *file, const char *name, uint32_t rank,
                             const uint64_t *shape, const struct m2se_tensor **tensor,
                             struct m2se_error *error);

/* The text under key in `__metadata__`, or NULL; and all of them as an object of strings, or NULL if there is
 * none. */
const char *m2se_safetensors_metadata(const struct m2se_safetensors *file, const char *key);
const struct m2se_json *m2se_safetensors_metadata_all(const struct m2se_safetensors *file);
/* A metadata text that must be a whole number in [min, max] or a finite real in [min, max]. M2SE_EMISSING,
 * M2SE_ETYPE, M2SE_ERANGE. */
int m2se_safetensors_metadata_uint(const struct m2se_safetensors *file, const char *key, uint64_t min,
                                   uint64_t max, uint64_t *number, struct m2se_error *error);
int m2se_safetensors_metadata_real(const struct m2se_safetensors *file, const char *key, double min,
                                   double max, double *number, struct m2se_error *error);

/* Copy a tensor of the given shape (as in require) to caller memory, converting. Any other dtype: M2SE_ETYPE.
 * - f32: from F32, F16, BF16, F64 (beyond float: M2SE_ERANGE; NaN and infinities pass as they are)
 * - i32, i64: from I8, U8, I16, U16, I32, U32, I64, U64, with a range check (M2SE_ERANGE names the element)
 * - u8: from U8, BOOL
 *
 * `out` holds at least as many elements as the tensor: with M2SE_ANY in the shape, ask require for the count
 * first. After an error `out` may be partly written. */
int m2se_safetensors_read_f32(const struct m2se_safetensors *file, const char *name, uint32_t rank,
                              const uint64_t *shape, float *out, struct m2se_error *error);
int m2se_safetensors_read_i32(const struct m2se_safetensors *file, const char *name, uint32_t rank,
                              const uint64_t *shape, int32_t *out, struct m2se_error *error);
int m2se_safetensors_read_i64(const struct m2se_safetensors *file, const char *name, uint32_t rank,
                              const uint64_t *shape, int64_t *out, struct m2se_error *error);
int m2se_safetensors_read_u8(const struct m2se_safetensors *file, const char *name, uint32_t rank,
                             const uint64_t *shape, uint8_t *out, struct m2se_error *error);

/* ---- Writing ---- */

struct m2se_metadata {
  const char *key;
  const char *value;
};

/* What to write: tensors in this order (wide dtypes first keeps them aligned), metadata pairs, either may be
 * none. All borrowed for the call. */
struct m2se_safetensors_content {
  const struct m2se_tensor *tensors;
  uint32_t tensor_count;
  const struct m2se_metadata *metadata;
  uint32_t metadata_count;
};

/* To a new or emptied file at path, mode 0644; sync: fsync before close. On failure a regular file that was
 * begun is removed: after a failed fsync its content is unknown, so write it anew. M2SE_EIO names path and
 * errno; names, shapes or metadata that the format does not allow: the reader's errors, before anything is
 * written. */
int m2se_safetensors_write(const char *path, const struct m2se_safetensors_content *content, bool sync,
                           struct m2se_error *error);
/* To an open descriptor, at its position, which stays open; label: the name in errors. */
int m2se_safetensors_write_fd(int fd, const char *label, const struct m2se_safetensors_content *content,
                              struct m2se_error *error);

#endif
