// Texts for each of the small tokenizers, and folders: the first byte says which. Any text has ids, in a
// bounded number of steps, and a cut one begins like the whole; any folder is refused with a reason or can be
// used.
#include <assert.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { IDS = 100000, MODELS = 4 };
static const char *const models[MODELS] = {"bert-uncased", "bert-cased", "clip", "clip-files"};
static struct m2se_tokenizer *tokenizers[MODELS];
static struct m2se_tokenizer_scratch *scratch;
static uint32_t whole[IDS], cut[IDS];
static char folder[] = "/tmp/m2se-fuzz-tokenizer-XXXXXX";

static void remove_folder(void) {
  rmdir(folder);
}

static void set_up(void) {
  scratch = m2se_tokenizer_scratch_new();
  for (size_t i = 0; i < MODELS; i++) {
    char path[512];
    snprintf(path, sizeof path, M2SE_FIXTURES "/%s", models[i]);
    int code = m2se_tokenizer_load(&tokenizers[i], path, NULL);
    assert(code == 0);
  }
  const char *made = mkdtemp(folder);
  assert(scratch && made);
  atexit(remove_folder);
}

static void check_text(const struct m2se_tokenizer *tokenizer, const char *text, size_t size) {
  bool truncated = false;
  uint64_t before = m2se_tokenizer_scratch_steps(scratch);
  uint32_t count = m2se_tokenizer_encode(tokenizer, scratch, text, size, IDS, whole, NULL);
  assert(m2se_tokenizer_scratch_steps(scratch) - before <= 200 * size + 200);
  assert(count >= 2 && count <= IDS);
  assert(whole[0] == m2se_tokenizer_first_id(tokenizer) &&
         whole[count - 1] == m2se_tokenizer_last_id(tokenizer));
  for (uint32_t i = 0; i < count; i++) {
    size_t length;
    assert(whole[i] < m2se_tokenizer_ids(tokenizer) && m2se_tokenizer_token(tokenizer, whole[i], &length));
  }
  uint32_t few = 2 + (uint32_t)(size % 7);
  uint32_t left = m2se_tokenizer_encode(tokenizer, scratch, text, size, few, cut, &truncated);
  assert(left == (count < few ? count : few) &&
         truncated == (count > few || size > M2SE_TOKENIZER_TEXT_BYTES_MAX));
  assert(memcmp(cut, whole, (left - 1) * sizeof cut[0]) == 0);
}

static void check_folder(const char *name, const char *text, size_t size) {
  char path[sizeof folder + 32];
  struct m2se_tokenizer *tokenizer = NULL;
  struct m2se_error error = {0};
  snprintf(path, sizeof path, "%s/%s", folder, name);
  int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  ssize_t written = write(file, text, size);
  assert(file >= 0 && written == (ssize_t)size);
  close(file);
  int code = m2se_tokenizer_load(&tokenizer, folder, &error);
  assert(code == error.code && (code == 0) == (tokenizer != NULL) && (code == 0 || error.text[0]));
  if (tokenizer) {
    static const char sample[] = "a [MASK] \xC3\xA9 ab<|endoftext|>'s";
    check_text(tokenizer, sample, strlen(sample));
  }
  m2se_tokenizer_free(tokenizer);
  unlink(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!scratch) {
    set_up();
  }
  if (size == 0) {
    return 0;
  }
  const char *text = (const char *)data + 1;
  if (data[0] == 'J') {
    check_folder("tokenizer.json", text, size - 1);
  } else if (data[0] == 'V') {
    check_folder("vocab.txt", text, size - 1);
  } else {
    check_text(tokenizers[data[0] % MODELS], text, size - 1);
  }
  return 0;
}
