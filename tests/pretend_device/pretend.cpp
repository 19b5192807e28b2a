// A second device in the memory of the host, for tests on machines without an accelerator.
//
// Its kernels are the CPU's, but its tensors do not mix with those of the CPU, its random numbers
// are its own, its memory may be limited, and each time the host would wait for it is counted.
// What it cannot show: work at the same time, streams, graphs, and kernels that round otherwise.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/TensorUtils.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <cstring>
#include <map>
#include <mutex>

namespace {

using at::Tensor;
using c10::Device;
using c10::DeviceIndex;
using c10::DispatchKey;
using c10::IValue;

constexpr auto kType = c10::DeviceType::PrivateUse1;
constexpr int kDevices = 2;
thread_local DeviceIndex current = 0;

// What a test may set, and what it may ask.
bool has_float64 = true;      // Apple's device has none
bool reads_late = false;      // Apple's device reads memory that is not pinned when it gets there
bool may_wait = true;
std::mutex mutex;
std::map<std::string, int64_t> counts;
int64_t used[kDevices] = {}, peak[kDevices] = {}, limit[kDevices] = {-1, -1};

void count(const std::string& what) {
  std::lock_guard<std::mutex> lock(mutex);
  counts[what]++;
}

// Copies to the device that may still be under way: their source must stay as it was until the
// host has waited; pinned memory may be freed, as torch keeps it.
struct Copy {
  c10::weak_intrusive_ptr<c10::StorageImpl> storage;
  const char* begin;
  std::string seen;
  bool is_pinned;
};
std::vector<Copy> under_way;

void finish_copies() {
  std::vector<Copy> copies;
  { std::lock_guard<std::mutex> lock(mutex); copies.swap(under_way); }
  for (auto& copy : copies) {
    auto storage = copy.storage.lock();
    const bool is_changed = storage ? memcmp(copy.begin, copy.seen.data(), copy.seen.size()) != 0 : !copy.is_pinned;
    if (is_changed) count("race");
  }
}

void wait_for_device(const std::string& why) {
  count("wait");
  count("wait: " + why);
  finish_copies();
  TORCH_CHECK(may_wait, "the host waits for the device: ", why);
}

// Memory.

struct Block { void* memory; int64_t size; DeviceIndex device; };

void free_block(void* context) {
  auto* block = static_cast<Block*>(context);
  { std::lock_guard<std::mutex> lock(mutex); used[block->device] -= block->size; }
  free(block->memory);
  delete block;
}

struct DeviceMemory final : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    const auto size = static_cast<int64_t>(n);
    {
      std::lock_guard<std::mutex> lock(mutex);
      TORCH_CHECK_WITH(OutOfMemoryError, limit[current] < 0 || used[current] + size <= limit[current],
                       "pretend out of memory: ", size, " bytes beside ", used[current], " of ", limit[current]);
      used[current] += size;
      peak[current] = std::max(peak[current], used[current]);
    }
    void* memory = n ? aligned_alloc(64, (n + 63) / 64 * 64) : nullptr;
    if (memory) memset(memory, 0xFF, n);  // NaN, for those who read before they write
    return {memory, new Block{memory, size, current}, &free_block, Device(kType, current)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, size_t n) const override { memcpy(to, from, n); }
} device_memory;

std::map<const char*, size_t> pinned;

void free_pinned(void* memory) {
  { std::lock_guard<std::mutex> lock(mutex); pinned.erase(static_cast<char*>(memory)); }
  free(memory);
}

bool is_pinned(const void* data) {
  std::lock_guard<std::mutex> lock(mutex);
  auto next = pinned.upper_bound(static_cast<const char*>(data));
  if (next == pinned.begin()) return false;
  --next;
  return data <= next->first + next->second;
}

struct PinnedMemory final : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    auto* memory = static_cast<char*>(aligned_alloc(64, n / 64 * 64 + 64));
    { std::lock_guard<std::mutex> lock(mutex); pinned[memory] = n; }
    return {memory, memory, &free_pinned, Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, size_t n) const override { memcpy(to, from, n); }
} pinned_memory;

// Random numbers: for the same seed others than the CPU's.

constexpr uint64_t kOther = 0x5DEECE66DULL;

struct Generator final : at::CPUGeneratorImpl {
  explicit Generator(DeviceIndex index) : CPUGeneratorImpl(c10::default_rng_seed_val ^ kOther) {
    device_ = Device(kType, index);
    key_set_ = c10::DispatchKeySet(DispatchKey::PrivateUse1);
  }
  void set_current_seed(uint64_t seed) override { CPUGeneratorImpl::set_current_seed(seed ^ kOther); }
  uint64_t current_seed() const override { return CPUGeneratorImpl::current_seed() ^ kOther; }
};

const at::Generator& default_generator(DeviceIndex index) {
  static const at::Generator all[kDevices] = {at::make_generator<Generator>(0), at::make_generator<Generator>(1)};
  return all[index < 0 ? current : index];
}

// Runs a kernel of the CPU's with the numbers of a generator of the device.
struct Seeded {
  at::Generator cpu = at::detail::getDefaultCPUGenerator(), own;
  Tensor before = cpu.get_state();
  explicit Seeded(at::Generator own) : own(std::move(own)) { cpu.set_state(this->own.get_state()); }
  ~Seeded() { own.set_state(cpu.get_state()); cpu.set_state(before); }
};

// What torch asks of a device.

DeviceIndex exchange(DeviceIndex index) {
  TORCH_CHECK(index < kDevices, "there is no device ", int(index));
  const auto before = current;
  if (index >= 0) current = index;
  return before;
}

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kType; }
  Device exchangeDevice(Device d) const override { return Device(kType, exchange(d.index())); }
  Device getDevice() const override { return Device(kType, current); }
  void setDevice(Device d) const override { exchange(d.index()); }
  void uncheckedSetDevice(Device d) const noexcept override { current = d.index(); }
  c10::Stream getStream(Device d) const override { return c10::Stream(c10::Stream::DEFAULT, d); }
  c10::Stream getDefaultStream(Device d) const override { return getStream(d); }
  c10::Stream getStreamFromGlobalPool(Device d, bool) const override { return getStream(d); }
  c10::Stream getNewStream(Device d, int) const override { return getStream(d); }
  c10::Stream exchangeStream(c10::Stream s) const override { return s; }
  DeviceIndex deviceCount() const noexcept override { return kDevices; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override { wait_for_device("stream"); }
  void synchronizeDevice(const DeviceIndex) const override { wait_for_device("device"); }
  void record(void** event, const c10::Stream&, const DeviceIndex, const c10::EventFlag) const override {
    static int one;
    *event = &one;
  }
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override { wait_for_device("event"); }
  void destroyEvent(void*, const DeviceIndex) const noexcept override {}
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}
};

struct Hooks final : at::PrivateUse1HooksInterface {
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return kDevices; }
  void setCurrentDevice(DeviceIndex d) const override { exchange(d); }
  DeviceIndex getCurrentDevice() const override { return current; }
  DeviceIndex exchangeDevice(DeviceIndex d) const override { return exchange(d); }
  DeviceIndex maybeExchangeDevice(DeviceIndex d) const override { return exchange(d); }
  bool isPinnedPtr(const void* data) const override { return is_pinned(data); }
  at::Allocator* getPinnedMemoryAllocator() const override { return &pinned_memory; }
  Device getDeviceFromPtr(void*) const override { return Device(kType, current); }
  const at::Generator& getDefaultGenerator(DeviceIndex d) const override { return default_generator(d); }
  at::Generator getNewGenerator(DeviceIndex d) const override { return at::make_generator<Generator>(d < 0 ? current : d); }
};

// Tensors: made, seen anew, and copied.

bool is_ours(const Tensor& t) { return t.defined() && t.device().type() == kType; }

c10::ScalarType checked(std::optional<c10::ScalarType> given) {
  const auto dtype = c10::dtype_or_default(given);
  TORCH_CHECK_TYPE(has_float64 || (dtype != at::kDouble && dtype != at::kComplexDouble),
                   "Cannot convert a tensor to float64 dtype as this device does not support float64.");
  return dtype;
}

Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<c10::ScalarType> dtype,
                     std::optional<c10::Layout>, std::optional<Device> device, std::optional<bool>) {
  c10::DeviceGuard guard(device.value_or(Device(kType, current)));
  return at::detail::empty_strided_generic(size, stride, &device_memory, c10::DispatchKeySet(DispatchKey::PrivateUse1), checked(dtype));
}

Tensor empty(c10::IntArrayRef size, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout>,
             std::optional<Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  c10::DeviceGuard guard(device.value_or(Device(kType, current)));
  return at::detail::empty_generic(size, &device_memory, c10::DispatchKeySet(DispatchKey::PrivateUse1), checked(dtype), format);
}

// The memory of a storage as a tensor with the sizes, the strides and the offset of another.
Tensor seen_as(c10::Storage storage, c10::DispatchKeySet keys, const Tensor& like) {
  auto made = at::detail::make_tensor<c10::TensorImpl>(c10::TensorImpl::VIEW, std::move(storage), keys, like.dtype());
  made.unsafeGetTensorImpl()->set_sizes_and_strides(like.sizes(), like.strides(), like.storage_offset());
  return made;
}

Tensor strided(const Tensor& self, c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<int64_t> offset) {
  auto made = seen_as(c10::Storage(self.storage()), self.key_set(), self);
  made.unsafeGetTensorImpl()->set_sizes_and_strides(size, stride, offset.value_or(self.storage_offset()));
  return made;
}

Tensor reshape_alias(const Tensor& self, c10::IntArrayRef size, c10::IntArrayRef stride) {
  return strided(self, size, stride, std::nullopt);
}

const Tensor& resize_(const Tensor& self, c10::IntArrayRef size, std::optional<at::MemoryFormat>) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_sizes_contiguous(size);
  const auto bytes = static_cast<size_t>((impl->numel() + impl->storage_offset()) * self.itemsize());
  auto* storage = self.storage().unsafeGetStorageImpl();
  if (bytes > storage->nbytes()) {
    c10::DeviceGuard guard(self.device());
    auto data = device_memory.allocate(bytes);
    if (storage->nbytes()) memcpy(data.get(), storage->data(), storage->nbytes());
    storage->set_data_ptr_noswap(std::move(data));
    storage->set_nbytes(bytes);
  }
  return self;
}

Tensor& set_(Tensor& self, c10::Storage storage, int64_t offset, c10::IntArrayRef size, c10::IntArrayRef stride) {
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(std::move(storage));
  self.unsafeGetTensorImpl()->set_sizes_and_strides(size, stride, offset);
  return self;
}

Tensor& set_whole(Tensor& self, c10::Storage storage) {
  const auto n = static_cast<int64_t>(storage.nbytes() / self.itemsize());
  return set_(self, std::move(storage), 0, {n}, {1});
}

Tensor on_host(const Tensor& self) {
  const auto& storage = self.storage();
  return seen_as(c10::Storage(c10::Storage::use_byte_size_t(), storage.nbytes(),
                              c10::DataPtr(storage.mutable_data(), Device(c10::kCPU)), c10::GetAllocator(c10::kCPU), true),
                 c10::DispatchKeySet(DispatchKey::CPU), self);
}

Tensor on_device(const Tensor& host, Device device) {
  auto made = empty_strided(host.sizes(), host.strides(), host.scalar_type(), {}, device, {});
  if (host.numel()) on_host(made).copy_(host);
  return made;
}

Tensor copy_from(const Tensor& source, const Tensor& target, bool is_late) {
  const bool from = is_ours(source), to = is_ours(target);
  auto target_on_host = to ? on_host(target) : target;
  if (from && !to) wait_for_device("copy to the host");
  target_on_host.copy_(from ? on_host(source) : source);
  if (from || !to) return target;
  const bool pins = is_pinned(source.const_data_ptr());
  if (!is_late) {
    wait_for_device("copy to the device");
  } else if ((pins || reads_late) && source.is_contiguous()) {  // else torch has read it already
    const auto* begin = static_cast<const char*>(source.const_data_ptr());
    std::lock_guard<std::mutex> lock(mutex);
    under_way.push_back({source.storage().getWeakStorageImpl(), begin, std::string(begin, source.nbytes()), pins});
  }
  return target;
}

Tensor copy_from_and_resize(const Tensor& source, const Tensor& target) {
  if (target.sizes() != source.sizes()) target.resize_(source.sizes());
  return copy_from(source, target, false);
}

at::Scalar local_scalar(const Tensor& self) {
  wait_for_device("item");
  return on_host(self).item();
}

bool has_compatible_type(const Tensor&, const Tensor&) { return true; }  // `module.to` moves weights in place

// All other operations: those of the CPU, on the same memory.

struct Call {
  const std::string name;
  std::vector<std::pair<Tensor, Tensor>> pairs;  // on the device, on the host
  std::optional<Device> place;
  std::optional<at::Generator> generator;
  bool has_mask = false, has_host_index = false;

  void look(const Tensor& t) {
    if (!is_ours(t)) return;
    if (!place) place = t.device();
    TORCH_CHECK(*place == t.device(), "Expected all tensors to be on the same device, but found at least two devices, ",
                *place, " and ", t.device(), "! (in ", name, ")");
  }

  Tensor given(const Tensor& t) {
    if (!t.defined()) return t;
    if (!is_ours(t)) {
      const bool is_taken = t.dim() == 0 || !place || name == "aten::index" || name == "aten::_index_put_impl_";
      TORCH_CHECK(is_taken, "Expected all tensors to be on the same device, but found at least two devices, ", *place,
                  " and ", t.device(), "! (in ", name, ")");
      return t;
    }
    for (const auto& [device, host] : pairs) if (device.is_same(t)) return host;
    pairs.emplace_back(t, on_host(t));
    return pairs.back().second;
  }

  Tensor made(const Tensor& t) {
    if (!t.defined() || !place) return t;
    for (const auto& [device, host] : pairs) if (host.is_same(t)) return device;
    for (const auto& [device, host] : pairs) {
      if (t.storage().is_alias_of(host.storage())) return seen_as(c10::Storage(device.storage()), device.key_set(), t);
    }
    return on_device(t, *place);
  }

  // Outputs that the kernel gave another shape or more memory.
  void follow() {
    for (const auto& [device, host] : pairs) {
      if (host.storage().data() != device.storage().data()) {
        device.resize_(host.sizes());
        on_host(device).copy_(host);
      } else if (host.sizes() != device.sizes() || host.strides() != device.strides()) {
        device.unsafeGetTensorImpl()->set_sizes_and_strides(host.sizes(), host.strides(), host.storage_offset());
      }
    }
  }

  template <typename F>
  IValue each(const IValue& value, F f) {
    if (value.isTensor()) return f(value.toTensor());
    if (value.isTensorList()) {
      c10::List<Tensor> list;
      for (const Tensor& t : value.toTensorVector()) list.push_back(f(t));
      return list;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<Tensor>> list;
      for (const auto& t : value.toOptionalTensorVector()) {
        if (t && t->defined()) {
          has_mask |= t->scalar_type() == at::kBool || t->scalar_type() == at::kByte;
          has_host_index |= t->dim() > 0 && !is_ours(*t);
        }
        list.push_back(t ? std::optional<Tensor>(f(*t)) : t);
      }
      return list;
    }
    return value;
  }
};

void fallback(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  Call call{schema.name()};
  auto arguments = torch::jit::last(*stack, schema.arguments().size());
  const auto begin = stack->end() - arguments.size();
  for (auto value = begin; value != stack->end(); ++value) call.each(*value, [&](const Tensor& t) { call.look(t); return t; });
  for (auto value = begin; value != stack->end(); ++value) {
    if (value->isDevice()) {
      if (!call.place) call.place = value->toDevice();
      *value = Device(c10::kCPU);
    } else if (value->isGenerator()) {
      call.generator = value->toGenerator();
      *value = IValue();
    } else {
      *value = call.each(*value, [&](const Tensor& t) { return call.given(t); });
    }
  }
  if (call.place && !call.place->has_index()) call.place = Device(kType, current);
  count("operation");
  const bool is_index = call.name == "aten::index" || call.name == "aten::_index_put_impl_";
  const bool is_dynamic = op.hasTag(at::Tag::data_dependent_output) || op.hasTag(at::Tag::dynamic_output_shape);
  if (is_index ? call.has_mask || call.has_host_index : is_dynamic) wait_for_device(call.name);
  {
    std::optional<Seeded> seeded;
    if (call.generator || op.hasTag(at::Tag::nondeterministic_seeded)) {
      seeded.emplace(call.generator ? *call.generator : default_generator(call.place ? call.place->index() : -1));
    }
    auto kernel = op;
    if (call.name == "aten::convolution_overrideable") {
      kernel = c10::Dispatcher::singleton().findSchemaOrThrow("aten::convolution", "");
    } else if (call.name == "aten::convolution_backward_overrideable") {
      kernel = c10::Dispatcher::singleton().findSchemaOrThrow("aten::convolution_backward", "");
      const auto n_outputs = (*(stack->end() - schema.arguments().size())).toTensor().size(1);
      const bool has_bias = stack->back().toBoolList()[2];
      stack->insert(stack->end() - schema.arguments().size() + 3, has_bias ? IValue(std::vector<int64_t>{n_outputs}) : IValue());
    }
    kernel.redispatchBoxed(c10::DispatchKeySet(DispatchKey::CPU), stack);
  }
  call.follow();
  for (auto value = stack->end() - schema.returns().size(); value != stack->end(); ++value) {
    *value = call.each(*value, [&](const Tensor& t) { return call.made(t); });
  }
}

// Cells of recurrent layers, which accelerators have as one operation, and the CPU has not.

using Maybe = std::optional<Tensor>;

Tensor plus(const Tensor& gates, const Maybe& bias) { return bias && bias->defined() ? gates + *bias : gates; }
Tensor sum_or_nothing(const Tensor& gates, bool is_wanted) { return is_wanted ? gates.sum(0) : gates.new_empty({0}); }

std::tuple<Tensor, Tensor, Tensor> lstm(const Tensor& inner, const Tensor& hidden, const Tensor& cx, const Maybe& inner_bias,
                                        const Maybe& hidden_bias) {
  const auto gates = (plus(inner, inner_bias) + plus(hidden, hidden_bias)).chunk(4, 1);
  const auto in = gates[0].sigmoid(), forget = gates[1].sigmoid(), cell = gates[2].tanh(), out = gates[3].sigmoid();
  const auto cy = forget * cx + in * cell;
  return {out * cy.tanh(), cy, at::cat({in, forget, cell, out}, 1)};
}

std::tuple<Tensor, Tensor, Tensor> lstm_backward(const Maybe& grad_hy, const Maybe& grad_cy, const Tensor& cx, const Tensor& cy,
                                                 const Tensor& gates, bool has_bias) {
  const auto parts = gates.chunk(4, 1);
  const auto &in = parts[0], &forget = parts[1], &cell = parts[2], &out = parts[3];
  const auto hy = grad_hy && grad_hy->defined() ? *grad_hy : at::zeros_like(cy), squashed = cy.tanh();
  const auto c = plus(hy * out * (1 - squashed * squashed), grad_cy);
  const auto grad = at::cat({c * cell * in * (1 - in), c * cx * forget * (1 - forget), c * in * (1 - cell * cell),
                             hy * squashed * out * (1 - out)}, 1);
  return {grad, c * forget, sum_or_nothing(grad, has_bias)};
}

std::tuple<Tensor, Tensor> gru(const Tensor& inner, const Tensor& hidden, const Tensor& hx, const Maybe& inner_bias,
                               const Maybe& hidden_bias) {
  const auto i = plus(inner, inner_bias).chunk(3, 1), h = plus(hidden, hidden_bias).chunk(3, 1);
  const auto reset = (i[0] + h[0]).sigmoid(), update = (i[1] + h[1]).sigmoid(), fresh = (i[2] + reset * h[2]).tanh();
  return {fresh + update * (hx - fresh), at::cat({reset, update, fresh, hx, h[2]}, 1)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> gru_backward(const Tensor& grad, const Tensor& kept, bool has_bias) {
  const auto parts = kept.chunk(5, 1);
  const auto &reset = parts[0], &update = parts[1], &fresh = parts[2], &hx = parts[3], &hn = parts[4];
  const auto of_fresh = grad * (1 - update) * (1 - fresh * fresh);
  const auto of_reset = of_fresh * hn * reset * (1 - reset), of_update = grad * (hx - fresh) * update * (1 - update);
  const auto inner = at::cat({of_reset, of_update, of_fresh}, 1), hidden = at::cat({of_reset, of_update, of_fresh * reset}, 1);
  return {inner, hidden, grad * update, sum_or_nothing(inner, has_bias), sum_or_nothing(hidden, has_bias)};
}

// For Python.

void install() {
  c10::SetAllocator(kType, &device_memory, 100);
  c10::impl::device_guard_impl_registry[static_cast<size_t>(kType)].store(new Guard());
  at::RegisterPrivateUse1HooksInterface(new Hooks());
}

void set(const std::string& name, int64_t value) {
  if (name == "has_float64") has_float64 = value;
  if (name == "reads_late") reads_late = value;
  if (name == "may_wait") may_wait = value;
}

std::vector<std::string> counted() {
  std::vector<std::string> lines;
  for (const auto& [what, n] : counts) lines.push_back(what + "=" + std::to_string(n));
  return lines;
}

void reset() {
  finish_copies();
  counts.clear();
  std::copy(used, used + kDevices, peak);
}

void set_limit(int64_t device, int64_t bytes) { limit[device] = bytes; }
std::vector<int64_t> memory(int64_t device) { return {used[device], peak[device], limit[device]}; }
Tensor get_rng_state(int64_t device) { return default_generator(device).get_state(); }
void set_rng_state(const Tensor& state, int64_t device) { at::Generator(default_generator(device)).set_state(state); }
void set_device(int64_t device) { exchange(device); }
int64_t current_device() { return current; }

}  // namespace

TORCH_LIBRARY(pretend, m) {
  m.def("install", &install);
  m.def("set", &set);
  m.def("counted", &counted);
  m.def("reset", &reset);
  m.def("set_limit", &set_limit);
  m.def("memory", &memory);
  m.def("get_rng_state", &get_rng_state);
  m.def("set_rng_state", &set_rng_state);
  m.def("set_device", &set_device);
  m.def("current_device", &current_device);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }
TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", TORCH_FN(empty));
  m.impl("empty_strided", TORCH_FN(empty_strided));
  m.impl("as_strided", TORCH_FN(strided));
  m.impl("_reshape_alias", TORCH_FN(reshape_alias));
  m.impl("resize_", TORCH_FN(resize_));
  m.impl("set_.source_Storage_storage_offset", TORCH_FN(set_));
  m.impl("set_.source_Storage", TORCH_FN(set_whole));
  m.impl("_copy_from", TORCH_FN(copy_from));
  m.impl("_copy_from_and_resize", TORCH_FN(copy_from_and_resize));
  m.impl("_local_scalar_dense", TORCH_FN(local_scalar));
  m.impl("_has_compatible_shallow_copy_type", TORCH_FN(has_compatible_type));
  m.impl("_thnn_fused_lstm_cell", TORCH_FN(lstm));
  m.impl("_thnn_fused_lstm_cell_backward_impl", TORCH_FN(lstm_backward));
  m.impl("_thnn_fused_gru_cell", TORCH_FN(gru));
  m.impl("_thnn_fused_gru_cell_backward", TORCH_FN(gru_backward));
  for (const char* name : {"convolution_overrideable", "convolution_backward_overrideable"}) {
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&fallback>());
  }
}

// Autocast, with the lists of the other accelerators.
#define PRETEND_LOWER(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, lower_precision_fp)
#define PRETEND_FP32(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32)
#define PRETEND_DTYPE(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32_set_opt_dtype)
#define PRETEND_PROMOTE(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, promote)
TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) { m.fallback(torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
  AT_FORALL_LOWER_PRECISION_FP(PRETEND_LOWER)
  AT_FORALL_FP32(PRETEND_FP32)
  AT_FORALL_FP32_SET_OPT_DTYPE(PRETEND_DTYPE)
  AT_FORALL_PROMOTE(PRETEND_PROMOTE)
}
