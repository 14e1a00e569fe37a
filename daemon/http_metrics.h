/* Status as Prometheus' text format. Each metric is a row of the tables in http_metrics.c. Any thread. */
#ifndef M2SED_HTTP_METRICS_H
#define M2SED_HTTP_METRICS_H

#include "daemon/text.h"
#include "ingest/codec_status.h"

#define M2SED_METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* Appends to the text; out of memory is its `failed`. */
void m2sed_metrics_write(struct m2sed_text *text, const struct m2se_status *status);

#endif
