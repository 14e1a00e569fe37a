/* Folders and small files, for before the loop runs. Blocking. */
#ifndef M2SED_FOLDER_H
#define M2SED_FOLDER_H

#include "model/error.h"

/* Makes the folder and those above it, where they are missing. M2SE_EIO names what failed; M2SE_ELIMIT: too
 * long. */
int m2sed_folder_make(const char *path, struct m2se_error *error);
/* Writes a small file so that readers see the old content or the new, never half. M2SE_EIO, M2SE_ELIMIT. */
int m2sed_folder_write(const char *path, const char *text, struct m2se_error *error);

#endif
