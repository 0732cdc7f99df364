// System calls that Node lacks, in an addon of its own: it is small, and no engine comes with it. lib/system/system.ts
// declares the types of its exports.
#include <napi.h>
#include <sys/file.h>
#include <sys/prctl.h>

#include <cerrno>
#include <csignal>
#include <cstring>

namespace detinfer {
namespace {

/// (descriptor): whether the open file now has the exclusive lock of flock(2), which ends when the file is closed. Never
/// waits. Throws where files cannot be locked.
Napi::Value try_lock(const Napi::CallbackInfo& info) {
  const int file = info[0].ToNumber().Int32Value();
  int result;
  do {
    result = flock(file, LOCK_EX | LOCK_NB);
  } while (result != 0 && errno == EINTR);
  if (result != 0 && errno != EWOULDBLOCK) throw Napi::Error::New(info.Env(), std::strerror(errno));
  return Napi::Boolean::New(info.Env(), result == 0);
}

/// Has the kernel kill this process when its parent dies, whatever this process is busy with then.
void die_with_parent(const Napi::CallbackInfo&) { prctl(PR_SET_PDEATHSIG, SIGKILL); }

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("tryLock", Napi::Function::New(env, try_lock, "tryLock"));
  exports.Set("dieWithParent", Napi::Function::New(env, die_with_parent, "dieWithParent"));
  return exports;
}

}  // namespace

NODE_API_MODULE(NODE_GYP_MODULE_NAME, init)

}  // namespace detinfer
