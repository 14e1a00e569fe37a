// Runs files through a fuzz target without libFuzzer, so that every build, with any compiler, goes through
// the committed corpus. Each argument is a file or a folder of files.
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fail(const char *path) {
  fprintf(stderr, "%s: %s\n", path, strerror(errno));
  exit(1);
}

static void run_file(const char *path, size_t size) {
  // A block of exactly the file's size: a read past the end is then seen by AddressSanitizer.
  uint8_t *data = malloc(size ? size : 1);
  FILE *file = fopen(path, "rb");
  if (!data || !file || fread(data, 1, size, file) != size)
    fail(path);
  fclose(file);
  LLVMFuzzerTestOneInput(data, size);
  free(data);
}

static int run_path(const char *path) {
  struct stat status;
  if (stat(path, &status))
    fail(path);
  if (S_ISREG(status.st_mode)) {
    run_file(path, (size_t)status.st_size);
    return 1;
  }
  DIR *folder = opendir(path);
  if (!folder)
    fail(path);
  int count = 0;
  for (struct dirent *entry; (entry = readdir(folder));) {
    if (entry->d_name[0] == '.')
      continue;
    char child[PATH_MAX];
    if ((size_t)snprintf(child, sizeof child, "%s/%s", path, entry->d_name) >= sizeof child) {
      errno = ENAMETOOLONG;
      fail(path);
    }
    count += run_path(child);
  }
  closedir(folder);
  return count;
}

int main(int argc, char **argv) {
  int count = 0;
  for (int i = 1; i < argc; i++)
    count += run_path(argv[i]);
  printf("%d inputs\n", count);
  return count == 0; // an empty corpus tests nothing: that is a mistake in the set-up
}
