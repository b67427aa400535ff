<p>Hello from {{ $name }}</p>
