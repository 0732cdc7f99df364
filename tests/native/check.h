// A small test harness. A test file exports one table, `extern const TestTable kFooTests`, which tests/native/main.cpp
// lists: an explicit table can't lose a test, as self-registration in a static library can.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace detinfer::testing {

struct Test {
  const char* name;
  void (*run)();
};

struct TestTable {
  const char* name;
  std::vector<Test> tests;
};

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

[[noreturn]] inline void fail(const char* file, int line, const std::string& what) {
  throw Failure(std::string(file) + ":" + std::to_string(line) + ": " + what);
}

template <class A, class B>
void check_equal(const A& a, const B& b, const char* file, int line, const char* text) {
  if (a == b) return;
  std::ostringstream message;
  message << text << ": " << a << " != " << b;
  fail(file, line, message.str());
}

/// Runs `body` and returns the message of the E that it throws.
template <class E, class Body>
std::string message_of(Body body, const char* file, int line) {
  try {
    body();
  } catch (const E& error) {
    return error.what();
  }
  fail(file, line, "nothing was thrown");
}

}  // namespace detinfer::testing

/// Ends the test as failed unless the condition holds.
#define CHECK(condition) \
  ((condition) ? void() : ::detinfer::testing::fail(__FILE__, __LINE__, "not true: " #condition))
/// Like CHECK, with a message built by `<<`.
#define CHECK_MESSAGE(condition, stream)                                     \
  do {                                                                       \
    if (!(condition)) {                                                      \
      std::ostringstream check_message;                                      \
      check_message << #condition << ": " << stream;                         \
      ::detinfer::testing::fail(__FILE__, __LINE__, check_message.str());    \
    }                                                                        \
  } while (0)
#define CHECK_EQ(a, b) ::detinfer::testing::check_equal((a), (b), __FILE__, __LINE__, #a " == " #b)
/// The message of the exception of type E that the expression must throw.
#define MESSAGE_OF(E, expression) \
  ::detinfer::testing::message_of<E>([&] { expression; }, __FILE__, __LINE__)
