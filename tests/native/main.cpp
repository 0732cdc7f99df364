// Runs the native tests: detinfer_native_tests [substring of "table/test"].
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>

#include "tests/native/check.h"

namespace detinfer::testing {

extern const TestTable kNumericsTests, kMma16Tests, kLinearTests, kLinearScheduleTests, kAttentionTests;
extern const TestTable kRmsNormTests, kMlpTests, kMoeTests, kRopeTests, kSamplerTests, kEngineTests;
extern const TestTable kMoeModelTests, kSharesTests, kThreadPoolTests;

const TestTable* const kTables[] = {
    &kNumericsTests,  &kMma16Tests,   &kLinearTests, &kLinearScheduleTests,
    &kAttentionTests, &kRmsNormTests, &kMlpTests,    &kMoeTests,
    &kRopeTests,      &kSamplerTests, &kEngineTests, &kMoeModelTests,
    &kSharesTests,   &kThreadPoolTests,
};

}  // namespace detinfer::testing

int main(int argc, char** argv) {
  using namespace detinfer::testing;
  const char* filter = argc > 1 ? argv[1] : "";
  int passed = 0, failed = 0;
  for (const TestTable* table : kTables) {
    for (const Test& test : table->tests) {
      const std::string name = std::string(table->name) + "/" + test.name;
      if (name.find(filter) == std::string::npos) continue;
      std::printf("%s ... ", name.c_str());
      std::fflush(stdout);
      try {
        test.run();
        std::printf("ok\n");
        ++passed;
      } catch (const std::exception& error) {
        std::printf("FAILED\n  %s\n", error.what());
        ++failed;
      }
    }
  }
  if (passed + failed == 0) {
    std::printf("no test matches '%s'\n", filter);
    ++failed;
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
