/* The JSON header of a safetensors file and every rule about it. Private to this folder: the reader checks
 * what it found with it, the writer what it is about to write. */
#ifndef M2SE_SAFETENSORS_HEADER_H
#define M2SE_SAFETENSORS_HEADER_H

#include "model/files/safetensors.h"

#define M2SE_LABEL_MAX 160 /* bytes of a file's name in an error: its end, if it is longer */

struct m2se_header {
  struct m2se_json *json;           /* owns names and metadata */
  const struct m2se_json *metadata; /* NULL: none */
  struct m2se_tensor *tensors;      /* [count], in the order of their data; `data` is left NULL */
  uint32_t count;
};

/* text[0..size): the header without its length; data_bytes: what follows it. The text of an error names the
 * tensor, not the file. On failure *header is empty. */
int m2se_header_parse(struct m2se_header *header, const char *text, size_t size, uint64_t data_bytes,
                      struct m2se_error *error);
void m2se_header_free(struct m2se_header *header);

/* Fills count and bytes from shape and dtype. M2SE_EFORMAT: more than 64 bits can count. */
int m2se_tensor_measure(struct m2se_tensor *tensor, struct m2se_error *error);

/* The last M2SE_LABEL_MAX bytes of a path. */
const char *m2se_label(const char *path);

#endif
