<?php

use App\Http\Controllers\PageController;
use Illuminate\Http\Request;
use Illuminate\Support\Facades\Route;

Route::get('/', fn () => view('page', ['name' => config('app.name')]));
Route::get('/ws', fn () => '');
Route::get('/members', fn () => '')->middleware('auth');
Route::get('/forbidden', fn () => abort(403, 'not you'));
Route::get('/login', fn () => 'please log in')->name('login');
Route::get('/name/{name}', function (string $name) {
    session(['name' => $name]);
    return $name;
});
Route::get('/opened', fn () => (string) session('opened', 0));
Route::post('/echo', fn (Request $request) => $request->input('a') . ' ' . $request->ip());
Route::post('/upload', fn (Request $request) => $request->file('f')->getClientOriginalName() . ' '
    . $request->file('f')->get());
Route::get('/fresh', [PageController::class, 'fresh']);
Route::get('/push/{fd}', [PageController::class, 'push']);
Route::get('/tell/{user}', [PageController::class, 'tell']);
Route::get('/tell-later/{user}', [PageController::class, 'tellLater']);
Route::get('/broadcast', [PageController::class, 'broadcast']);
Route::get('/visit', function () {
    App\Cleaners\VisitsCleaner::$visits[] = 'visit';
    app()->instance('tymon.jwt', 'of a request');
    return implode(',', App\Cleaners\VisitsCleaner::$visits);
});
Route::post('/cookies', fn (Request $request) => json_encode([$request->cookies->all(), $request->header('x-own')]));
Route::get('/count', fn () => (string) ++app('counter')['count']);
Route::get('/spoil', function () {
    config(['app.name' => 'spoiled']);
    app()->setLocale('xx');
    app()->instance('left', true);
    view()->share('left', true);
    return 'spoiled';
});
Route::get('/spoiled', fn () => config('app.name') . ' ' . app()->getLocale() . ' '
    . json_encode([app()->bound('left'), view()->shared('left')]));
Route::get('/stream', fn () => response()->stream(function () {
    echo 'one ';
    echo 'two';
}));
Route::get('/robots', fn () => response()->file(public_path('robots.txt')));
Route::get('/echoed', function () {
    echo 'said ';
    return 'done';
});
Route::get('/dd', function () {
    file_put_contents(storage_path('dd'), "ran\n", FILE_APPEND);
    dd('dumped');
});
Route::get('/throws', fn () => throw new RuntimeException('as told'));
