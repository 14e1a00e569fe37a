/* The inside of an offered record; for side.c and side_record.c. */
#ifndef M2SED_SIDE_RECORD_H
#define M2SED_SIDE_RECORD_H

#include "daemon/features/side.h"

struct m2sed_side_record {
  uint64_t version;
  bool is_deletion;
  char id[M2SED_STORE_ID_MAX + 1];
  size_t bytes;   /* all of it */
  uint32_t count; /* at most M2SED_STORE_CONTENTS_MAX */
  struct m2sed_content
      contents[]; /* paths: the name alone, NUL-terminated; all else in the same allocation */
};

#endif
