/* Status as JSON: the field names of proto/m2se.proto; 64-bit numbers as decimal strings, the state as its
 * word. */
#ifndef M2SED_STATUS_JSON_H
#define M2SED_STATUS_JSON_H

#include "ingest/codec_status.h"

struct m2se_json_writer;

/* The members, into an object that the caller has opened. */
void m2sed_status_put_json(struct m2se_json_writer *writer, const struct m2se_status *status);

#endif
