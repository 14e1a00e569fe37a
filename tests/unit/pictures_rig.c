#include "tests/unit/pictures_rig.h"

#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct m2sed_pictures *pictures_rig_open(const struct m2sed_pictures_options *options) {
  struct m2sed_pictures_options own = options ? *options : (struct m2sed_pictures_options){0};
  own.helper = own.helper ? own.helper : M2SED_HELPER;
  struct m2sed_pictures *pictures;
  struct m2se_error error = {0};
  if (m2sed_pictures_open(&pictures, &own, &error) != 0) {
    fail_msg("%s", error.text);
  }
  return pictures;
}

uint8_t *pictures_rig_read(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  if (!file) {
    fail_msg("%s cannot be opened", path);
  }
  size_t room = 1 << 20;
  uint8_t *bytes = malloc(room);
  assert_non_null(bytes);
  *size = fread(bytes, 1, room - 1, file);
  assert_true(*size < room - 1);
  bytes[*size] = 0;
  fclose(file);
  return bytes;
}

void pictures_rig_write(const char *path, const void *bytes, size_t size) {
  int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  assert_true(fd >= 0);
  assert_int_equal(write(fd, bytes, size), size);
  close(fd);
}

static int remove_one(const char *path, const struct stat *about, int kind, struct FTW *where) {
  (void)about;
  (void)kind;
  (void)where;
  return remove(path);
}

void pictures_rig_remove(const char *root) {
  assert_int_equal(nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

pid_t pictures_rig_child(void) {
  char path[64], text[64] = "";
  snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)gettid());
  FILE *file = fopen(path, "r");
  assert_non_null(file);
  assert_non_null(fgets(text, sizeof text, file));
  fclose(file);
  char *end;
  long child = strtol(text, &end, 10);
  assert_true(child > 0 && strcmp(end, " ") == 0);
  return (pid_t)child;
}

void pictures_rig_expect_file(struct m2sed_pictures *pictures, const char *root, const char *path,
                              enum m2sed_picture_reason reason) {
  struct m2sed_picture picture;
  struct m2se_error error = {0};
  uint64_t before = m2sed_pictures_count(pictures).by_reason[reason];
  int came = m2sed_pictures_decode_file(pictures, root, path, &picture, &error);
  if (came != (int)reason) {
    fail_msg("%s: %d (%s), not %s", path, came, error.text, m2sed_picture_reason_name((int)reason));
  }
  const char *name = m2sed_picture_reason_name((int)reason);
  assert_memory_equal(error.text, name, strlen(name));
  assert_null(picture.pixels);
  assert_int_equal(m2sed_pictures_count(pictures).by_reason[reason], before + 1);
}
